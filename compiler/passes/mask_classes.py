"""Pass `mask_classes`: of a new head's N scores only the first `classes` count, a number given for every run.

The scalar `classes` (i32, 1 to N) makes a vector `keep` of ones and zeros; scores of other classes become a number so
far below any other that softmax gives them 0. So they take part in no loss and no gradient: keep * gradient is 0 too.
Everything but the scalar's conversion is elementwise and fuses into the dense layer.

Requires HEAD_REPLACED. Ensures CLASSES_MASKED.
"""

from __future__ import annotations

import numpy as np

from edgec.compiler.passbase import Options
from edgec.compiler.passes.replace_head import class_axis, find_head
from edgec.compiler.rewrite import param_behind, reserve
from edgec.graph.ir import Bounds, Graph, Module, Node, Role, Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.cast import Cast
from edgec.graph.ops.clip import Clip
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.sub import Sub
from edgec.graph.types import DType, tensor

CLASSES = "classes"

# exp of it is 0 and twice of it is finite, in every float type.
_FAR_BELOW = -1e4


def mask_classes(module: Module, options: Options) -> bool:
    if options.new_head is None:
        return False
    graph = module.programs["infer"]
    if live_classes(graph) is not None:
        return False
    reserve(graph, CLASSES, "the number of live classes")
    layer = find_head(graph, options.new_head.node)
    scores = _behind_bias(graph, layer)
    axis = class_axis(layer)
    _mask(graph, scores, axis, options.new_head.classes)
    return True


def live_classes(graph: Graph) -> Value | None:
    """The scalar `classes` of a program, if it has one."""
    leaf = graph.leaves.get(CLASSES)
    return leaf if leaf is not None and leaf.role is Role.SCALAR else None


def _behind_bias(graph: Graph, layer: Node) -> Value:
    """The layer's result, or the sum with its bias where nobody reads it without."""
    value = layer.output
    if len(value.uses) == 1 and not graph.is_result(value):
        ((reader, slot),) = value.uses
        if isinstance(reader.op, Add) and param_behind(reader.inputs[1 - slot]) is not None:
            return reader.output
    return value


def _mask(graph: Graph, scores: Value, axis: int, count: int) -> None:
    """All readers of `scores` read scores * keep + (1 - keep) * far below instead."""
    readers, outputs = list(scores.uses), [name for name, value in graph.outputs.items() if value is scores]
    dtype = scores.type.dtype
    shape = (count, *(1 for _ in scores.type.shape[axis + 1 :]))
    before = min((reader for reader, _ in readers), key=graph.nodes.index, default=None)

    def emit(op: object, *operands: Value, name: str = "") -> Value:
        return graph.emit1(op, *operands, name=name, before=before)

    classes = graph.add_leaf(Role.SCALAR, CLASSES, tensor(DType.I32), bounds=Bounds(1, count))
    live = emit(Cast(dtype.value), classes)
    positions = graph.constant(np.arange(count).reshape(shape).astype(dtype.numpy), "class.numbers")
    keep = emit(Clip(0.0, 1.0), emit(Sub(), live, positions), name="class.live")
    far = graph.constant(np.array(_FAR_BELOW, dtype.numpy), "class.far")
    offset = emit(Sub(), far, emit(Mul(), keep, far), name="class.offset")
    masked = emit(Add(), emit(Mul(), scores, keep), offset, name=f"{scores.name}.masked")
    for reader, slot in readers:
        graph.set_input(reader, slot, masked)
    for name in outputs:
        graph.outputs[name] = masked
