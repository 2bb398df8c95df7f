"""Input channels of a layer's weight: which axis they are, how many a ratio keeps."""

from __future__ import annotations

from dataclasses import dataclass

from edgec.compiler.rewrite import param_behind
from edgec.compiler.sparse.layers import weight_of
from edgec.graph.errors import UserError
from edgec.graph.ir import Graph, Node, Value
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.transpose import Transpose


@dataclass(frozen=True)
class Channels:
    """Axis `axis` of a weight holds `count` channels of `unit` elements each: input channels, or groups of them."""

    axis: int
    count: int
    unit: int = 1

    def kept(self, ratio: float) -> int:
        """Channels that `ratio` of them are: rounded half up, and at least one."""
        return max(1, int(self.count * ratio + 0.5))


def channels_of(graph: Graph, weight: Value) -> Channels | None:
    """The input channels of a layer's weight; None for a parameter that is no layer's weight.

    A grouped convolution counts groups, a depthwise one so its channels. UserError E0302 for a weight whose channels
    cannot be followed to its layer.
    """
    node = next((node for node in graph.nodes if weight_of(node) is weight), None)
    if node is None:
        return None
    slot, axis, unit = _operand(node)
    path = []
    value = node.inputs[slot]
    while value is not weight:
        path.append(value.producer)
        value = value.producer.inputs[0]
    for step in path:
        axis = _before(step, axis, weight)
    return Channels(axis, weight.type.shape[axis] // unit, unit)


def _operand(node: Node) -> tuple[int, int, int]:
    """Of a layer: the operand that is the weight, its axis of input channels, and how many elements go together."""
    op = node.op
    weight = node.inputs[1].type.shape
    if isinstance(op, Conv2d | Conv2dInputGrad) and op.groups > 1:
        return 1, 0, weight[0] // op.groups
    if isinstance(op, Conv2d):
        return 1, 1, 1
    if isinstance(op, Conv2dInputGrad):
        return 1, 0, 1
    assert isinstance(op, MatMul)
    left, right = (value.type.rank for value in node.inputs)
    if param_behind(node.inputs[1]) is not None:
        return 1, right - 1 if op.transpose_b else right - 2, 1
    return 0, left - 2 if op.transpose_a else left - 1, 1


def _before(step: Node, axis: int, weight: Value) -> int:
    """The axis of the operand of a transposition or reshape that is `axis` of its result."""
    if isinstance(step.op, Transpose):
        return step.op.perm[axis]
    assert isinstance(step.op, Reshape)
    before, after = step.inputs[0].type.shape, step.output.type.shape
    outer = 1
    for extent in after[:axis]:
        outer *= extent
    place = 1
    for candidate, extent in enumerate(before):
        if place == outer and extent == after[axis]:
            return candidate
        place *= extent
    message = f"the channels of `{weight.name}` cannot be cut: the model reshapes it before it is used"
    raise UserError("E0302", message, where=f"weights.{weight.name}", hint="a ratio of 1 trains all of it")
