"""Where the channels of one operand of a convolution or product are: in the sum, or in the result."""

from __future__ import annotations

from dataclasses import dataclass

from edgec.graph.ir import Node, Value
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.matmul import MatMul


@dataclass(frozen=True)
class Contracted:
    """Summed over with axis `axis` of the other operand, `companion`."""

    companion: Value
    axis: int


@dataclass(frozen=True)
class Free:
    """They are axis `axis` of the result."""

    axis: int


def part_in(node: Node, slot: int, axis: int) -> Contracted | Free | None:
    """What axis `axis` of operand `slot`, a weight, is in `node`; None for groups, and for other ops and axes."""
    op = node.op
    if isinstance(op, Conv2d | Conv2dInputGrad) and slot == 1 and op.groups == 1 and axis < 2:
        inner = 1 if isinstance(op, Conv2d) else 0
        return Contracted(node.inputs[0], 1) if axis == inner else Free(1)
    if isinstance(op, MatMul) and node.inputs[slot].type.rank == 2 and node.inputs[0] is not node.inputs[1]:
        # Axes counted from behind: rows of the left and columns of the right operand are those of the result.
        inner = (2 if op.transpose_a else 1, 1 if op.transpose_b else 2)
        rank = node.output.type.rank
        if 2 - axis == inner[slot]:
            other = node.inputs[1 - slot]
            return Contracted(other, other.type.rank - inner[1 - slot])
        return Free(rank - 1 if slot else rank - 2)
    return None
