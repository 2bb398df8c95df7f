"""Pass `compress_saved`: large activations wait for the backward part of `train` as half floats, or as bytes.

With `saved_activations = "f16"` as what they round to; with `"int8"` as bytes, with a range for each channel: of a
feature map [N,C,H,W] axis 1, else the last axis. A scale is 1/254 of the range, and zero is one of its multiples, so
that zeros stay zeros. An element is at most half a scale away from what it was. Half floats are taken where bytes with
their scales would not be smaller, and for softmax, whose small probabilities a common scale would lose.

The forward part computes with exact values. Exact stay also what decides (masks, positions, comparisons), what is
divided by, and what a function that magnifies errors without bound is taken of. Each reader behind the guard gets the
value from its kept form by itself, so the whole value need not exist where the reader takes it element by element.

Requires UPDATES, NO_DEAD; ensures SAVED_COMPRESSED.
"""

from __future__ import annotations

import numpy as np

from edgec.compiler.passbase import Options
from edgec.compiler.recompute import forward_nodes, kept_values
from edgec.graph.ir import Graph, Module, Node, Value
from edgec.graph.ops.acos import Acos
from edgec.graph.ops.acosh import Acosh
from edgec.graph.ops.add import Add
from edgec.graph.ops.asin import Asin
from edgec.graph.ops.atanh import Atanh
from edgec.graph.ops.base import Op
from edgec.graph.ops.ceil import Ceil
from edgec.graph.ops.clip_grad import ClipGrad
from edgec.graph.ops.compress import STEPS, Compress
from edgec.graph.ops.cosh import Cosh
from edgec.graph.ops.decompress import Decompress
from edgec.graph.ops.div import Div
from edgec.graph.ops.exp import Exp
from edgec.graph.ops.floor import Floor
from edgec.graph.ops.fmod import Fmod
from edgec.graph.ops.hard_sigmoid_grad import HardSigmoidGrad
from edgec.graph.ops.log import Log
from edgec.graph.ops.mod import Mod
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.pow import Pow
from edgec.graph.ops.reduce_max import ReduceMax
from edgec.graph.ops.reduce_min import ReduceMin
from edgec.graph.ops.relu_grad import ReluGrad
from edgec.graph.ops.round import Round
from edgec.graph.ops.sign import Sign
from edgec.graph.ops.sinh import Sinh
from edgec.graph.ops.softmax import Softmax
from edgec.graph.ops.sqrt import Sqrt
from edgec.graph.ops.sub import Sub
from edgec.graph.ops.tan import Tan
from edgec.graph.types import DType

SMALLEST = 4096  # bytes of a value that is worth it
_RANGE = 1e-30  # at least, so that its inverse is finite

_JUMP = (Ceil, Floor, Round, Sign, Mod, Fmod)
_MAGNIFY = (Acos, Acosh, Asin, Atanh, Cosh, Exp, Log, Pow, Sinh, Sqrt, Tan)
_GATES = (ReluGrad, ClipGrad, HardSigmoidGrad)


def compress_saved(module: Module, options: Options) -> bool:
    graph = module.programs.get("train")
    if graph is None or options.train is None or options.train.saved_activations == "exact":
        return False
    forward = forward_nodes(graph)
    held = set(graph.results()) | _exact_values(graph, forward)
    chosen = [value for value in kept_values(graph, forward) if value not in held and _is_large(value)]
    for value in chosen:
        readers = [node for node in dict.fromkeys(node for node, _ in value.uses) if node not in forward]
        if options.train.saved_activations == "int8" and _bytes_are_smaller(value):
            _keep_bytes(graph, value, readers)
        else:
            _keep(graph, value, readers, Compress("f16"), (), ())
    return bool(chosen)


def _is_large(value: Value) -> bool:
    return value.type.dtype is DType.F32 and value.type.bytes >= SMALLEST


def _bytes_are_smaller(value: Value) -> bool:
    kept = value.type.size + 2 * DType.F32.bytes * value.type.shape[_channel_axis(value)]
    return kept < DType.F16.bytes * value.type.size and not isinstance(value.producer.op, Softmax)


def _channel_axis(value: Value) -> int:
    return 1 if value.type.rank == 4 else value.type.rank - 1


def _exact_values(graph: Graph, forward: set[Node]) -> set[Value]:
    """What nodes behind the guard, or nodes that read their results, must have as it was."""
    exact: set[Value] = set()
    for node in reversed(graph.nodes):
        if node in forward:
            continue
        all_of_them = isinstance(node.op, _JUMP + _MAGNIFY) or any(
            value in exact or not value.type.dtype.is_float for value in node.outputs
        )
        for slot, value in enumerate(node.inputs):
            if all_of_them or (slot == 1 and isinstance(node.op, (*_GATES, Div))):
                exact.add(value)
    return exact


def _keep_bytes(graph: Graph, value: Value, readers: list[Node]) -> None:
    """round(x / scale) - zero, where scale is 1/STEPS of the channel's range and zero = round(lowest / scale)."""
    behind = graph.nodes[graph.nodes.index(value.producer) + 1]
    axes = tuple(axis for axis in range(value.type.rank) if axis != _channel_axis(value))

    def emit(op: Op, *operands: Value) -> Value:
        name = graph.fresh_name(f"{value.name}.{op.name}")
        return graph.emit1(op, *operands, name=name, source=value.producer.source, before=behind)

    def number(factor: float) -> Value:
        return graph.constant(np.array(factor, np.float32))

    highest, lowest = emit(ReduceMax(axes, keepdims=True), value), emit(ReduceMin(axes, keepdims=True), value)
    extent = emit(Add(), emit(Sub(), highest, lowest), number(_RANGE))
    inverse = emit(Div(), number(STEPS), extent)
    zero = emit(Round(), emit(Mul(), lowest, inverse))
    scale = emit(Mul(), extent, number(1 / STEPS))
    _keep(graph, value, readers, Compress("u8"), (inverse, zero), (scale, zero))


def _keep(
    graph: Graph, value: Value, readers: list[Node], op: Compress, scaling: tuple[Value, ...], back: tuple[Value, ...]
) -> None:
    """Compress `value` where it is computed, after `scaling` is; each of `readers` decompresses it."""
    last = max([value, *scaling], key=lambda v: graph.nodes.index(v.producer))
    behind = graph.nodes[graph.nodes.index(last.producer) + 1]
    name = graph.fresh_name(f"{value.name}.{op.to}")
    kept = graph.emit1(op, value, *scaling, name=name, source=value.producer.source, before=behind)
    for node in readers:
        again = graph.emit1(
            Decompress(), kept, *back, name=graph.fresh_name(f"{value.name}.kept"), source=node.source, before=node
        )
        for slot, operand in enumerate(node.inputs):
            if operand is value:
                graph.set_input(node, slot, again)
