"""Which rows of its operands a run of rows of a node's result depends on, op by op.

Rows are axis 2 of f32[N,C,H,W], images axis 0. What has no rule here is not computed strip by strip.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from edgec.graph.ir import Node
from edgec.graph.ops.avg_pool2d import AvgPool2d
from edgec.graph.ops.base import Op
from edgec.graph.ops.broadcast_to import BroadcastTo
from edgec.graph.ops.concat import Concat
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.inside_bits import InsideBits
from edgec.graph.ops.max_pool2d import MaxPool2d

IMAGES, CHANNELS, ROWS = 0, 1, 2  # axes

Rows = tuple[int, int]  # first, and one past the last


@dataclass(frozen=True)
class Read:
    """Whether an operand is read image by image, and row by row; else as a whole, as weights are."""

    images: bool = False
    rows: bool = False


@dataclass(frozen=True)
class RowRule:
    """Result row r reads `extent` rows from `r * stride - top` on of each operand that is read by rows; those outside
    of it are padding.
    """

    reads: tuple[Read, ...]
    stride: int = 1
    extent: int = 1
    top: int = 0

    def rows_read(self, rows: Rows, height: int) -> tuple[Rows, Rows]:
        """Of an operand of `height` rows: those that result `rows` need, and the padding above and below them."""
        first = rows[0] * self.stride - self.top
        last = (rows[1] - 1) * self.stride - self.top + self.extent
        return (max(first, 0), min(last, height)), (max(-first, 0), max(last - height, 0))


def row_rule(node: Node) -> RowRule | None:
    """The rule of a node with one result f32[N,C,H,W] of two rows and more; None where it has none."""
    if len(node.outputs) != 1 or node.output.type.rank != 4 or node.output.type.shape[ROWS] < 2:
        return None
    whole, cut = Read(), Read(images=True, rows=True)
    match node.op:
        case Conv2d(strides=strides, pads=pads, dilations=dilations):
            taps = node.inputs[1].type.shape[ROWS]
            return RowRule((cut, whole), strides[0], (taps - 1) * dilations[0] + 1, pads[0])
        case MaxPool2d(kernel_size=kernel, strides=strides, pads=pads, dilations=dilations):
            return RowRule((cut,), strides[0], (kernel[0] - 1) * dilations[0] + 1, pads[0])
        case AvgPool2d(kernel_size=kernel, strides=strides, pads=pads):
            return RowRule((cut,), strides[0], kernel[0], pads[0])
        case Concat(axis=axis) | InsideBits(axis=axis) if axis == CHANNELS:
            return RowRule((cut,) * len(node.inputs))
        case op if op.elementwise and not isinstance(op, BroadcastTo):  # that one states its shape
            reads = [_elementwise_read(value.type.shape, node.output.type.shape) for value in node.inputs]
            return None if None in reads else RowRule(tuple(reads))
    return None


def _elementwise_read(operand: tuple[int, ...], result: tuple[int, ...]) -> Read | None:
    """How an operand that is broadcast to the result is read; None for rows that stand on another axis."""
    if len(operand) == len(result):
        return Read(operand[IMAGES] > 1, operand[ROWS] > 1)
    rows = operand[ROWS - len(result)] if len(operand) >= len(result) - ROWS else 1
    return None if rows > 1 else Read()


def with_padding(op: Op, padding: Rows) -> Op:
    """`op` with so many rows of padding above and below."""
    if isinstance(op, Conv2d | MaxPool2d | AvgPool2d):
        return dataclasses.replace(op, pads=(padding[0], op.pads[1], padding[1], op.pads[3]))
    return op
