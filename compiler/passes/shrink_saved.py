"""Pass `shrink_saved`: what is kept from the forward part of `train` for its backward part takes the fewest bytes.

Elementwise ops and moves cost next to nothing, so a result of theirs need not be kept where its operands are: a
hard-swish comes back from its argument, a weight scaled by a batch norm from the weight, an image as floats from its
bytes. Of a value that only tells the gradient of a clip or relu where to pass, a bit for each element is kept; where
values will be kept in a lossy form, of every value that tells one where to pass.

Which values to keep is a minimum cut: from the leaves and the results of all other ops to the readers behind the guard,
each value has the capacity of its bytes (as in functorch's min-cut partitioner, 2022). Among equal cuts the one that
computes least again is taken.

Requires UPDATES, NO_DEAD; ensures SAVED_SHRUNK.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from edgec.compiler.memory.min_cut import SINK, SOURCE, Network
from edgec.compiler.passbase import Options
from edgec.compiler.recompute import forward_nodes, recompute
from edgec.compiler.rewrite import replace_node
from edgec.graph.ir import Graph, Module, Node, Role, Value
from edgec.graph.ops.broadcast_to import BroadcastTo
from edgec.graph.ops.clip_grad import ClipGrad
from edgec.graph.ops.concat import Concat
from edgec.graph.ops.gate_by_bits import GateByBits
from edgec.graph.ops.hard_sigmoid_grad import HardSigmoidGrad
from edgec.graph.ops.inside_bits import InsideBits, packed_shape
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.relu_grad import ReluGrad
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.slice import Slice
from edgec.graph.ops.transpose import Transpose

_MOVES = (BroadcastTo, Concat, Reshape, Slice, Transpose)


def shrink_saved(module: Module, options: Options) -> bool:
    graph = module.programs.get("train")
    if graph is None:
        return False
    beside = _intervals(graph) if options.train and options.train.saved_activations != "exact" else []
    for interval in beside:
        _keep_bits(graph, interval)
    again, packed = smallest_cut(graph)
    for interval in packed:
        _keep_bits(graph, interval)
    return bool(recompute(graph, again) or packed or beside)


@dataclass(frozen=True)
class Interval:
    """All that a gradient needs to know of `value`: which elements lie strictly between `low` and `high`."""

    value: Value
    low: float
    high: float

    @property
    def axis(self) -> int:
        """The axis along which bits take fewest bytes, the first of equals."""
        shape = self.value.type.shape
        return min(range(len(shape)), key=lambda axis: math.prod(packed_shape(shape, axis)))

    @property
    def bytes(self) -> int:
        return math.prod(packed_shape(self.value.type.shape, self.axis))


def smallest_cut(graph: Graph) -> tuple[set[Value], list[Interval]]:
    """What of a train program's forward part is not worth its bytes until the backward part; what is kept as bits."""
    forward = forward_nodes(graph)
    results = set(graph.results())
    network = Network()
    entries: dict[Value, int] = {}
    exits: dict[Value, int] = {}
    packs: dict[Interval, tuple[int, int]] = {}
    for value in _values(graph, [node for node in graph.nodes if node in forward]):
        entries[value], exits[value] = network.vertex(), network.vertex()
        network.connect(entries[value], exits[value], 0 if _stays(value, results) else value.type.bytes)
        if value.producer is not None and is_cheap(value.producer):
            for operand in value.producer.inputs:
                network.connect(exits[operand], entries[value])
        else:
            network.connect(SOURCE, entries[value])
        for reader, slot in value.uses:
            if reader in forward:
                continue
            interval = _interval(reader) if slot == 1 else None
            if interval is None or value.producer is None:
                network.connect(exits[value], SINK)
            elif interval not in packs:
                packs[interval] = network.vertex(), network.vertex()
                network.connect(exits[value], packs[interval][0])
                network.connect(*packs[interval], interval.bytes)
                network.connect(packs[interval][1], SINK)
    behind = network.sink_side()
    again = {value for value, entry in entries.items() if entry in behind}
    return again, [interval for interval, (entry, _) in packs.items() if entry not in behind]


def _intervals(graph: Graph) -> list[Interval]:
    """All that gradients ask of forward values, each once: in a lossy form, those could not answer."""
    forward = forward_nodes(graph)
    readers = [node for node in graph.nodes if node not in forward and node.inputs]
    found = [_interval(node) for node in readers if node.inputs[-1].producer in forward]
    return list(dict.fromkeys(interval for interval in found if interval is not None))


def is_cheap(node: Node) -> bool:
    return node.op.elementwise or isinstance(node.op, _MOVES)


def _values(graph: Graph, nodes: Iterable[Node]) -> Iterable[Value]:
    yield from graph.leaves.values()
    for node in nodes:
        yield from node.outputs


def _stays(value: Value, results: set[Value]) -> bool:
    """Whether a value has its memory for the whole program anyway. An input has it until its last reader."""
    return value in results or value.role in (Role.PARAM, Role.STATE, Role.CONSTANT, Role.SCALAR)


def _interval(reader: Node) -> Interval | None:
    """What a gradient asks of its second operand, if that is all; None for other nodes, and where bits save nothing."""
    value = reader.inputs[-1]
    match reader.op:
        case ReluGrad():
            found = Interval(value, 0.0, math.inf)
        case ClipGrad(low=low, high=high):
            found = Interval(value, low, high)
        case HardSigmoidGrad():
            found = Interval(value, 0.0, 1.0)
        case _:
            return None
    return found if value.type.shape and found.bytes < value.type.bytes else None


def _keep_bits(graph: Graph, interval: Interval) -> None:
    """Pack the bits where the value is computed, and let the gradients that ask for them read those."""
    value = interval.value
    behind = graph.nodes[graph.nodes.index(value.producer) + 1]
    op = InsideBits(interval.low, interval.high, interval.axis)
    bits = graph.emit1(op, value, name=f"{value.name}.bits", source=value.producer.source, before=behind)
    for node in [reader for reader, slot in value.uses if slot == 1 and _interval(reader) == interval]:
        passed = graph.emit1(GateByBits(interval.axis), node.inputs[0], bits, source=node.source, before=node)
        if isinstance(node.op, HardSigmoidGrad):
            slope = graph.constant(np.asarray(node.op.alpha, passed.type.dtype.numpy))
            passed = graph.emit1(Mul(), passed, slope, source=node.source, before=node)
        replace_node(graph, node, passed, rename=True)
