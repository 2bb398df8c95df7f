"""numpy's broadcasting: its type rule, and its adjoint `sum_to`, of which broadcasting ops make their gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.graph.ops.base import GradientBuilder, Op, type_error
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.ops.reshape import Reshape
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


def broadcast_shape(op: Op, *inputs: TensorType) -> tuple[int, ...]:
    """The shape that all inputs broadcast to: aligned at the last axis, extents equal or 1."""
    rank = max(t.rank for t in inputs)
    shape = []
    for axis in range(rank):
        extents = {t.shape[axis - rank + t.rank] for t in inputs if axis - rank + t.rank >= 0} - {1}
        if len(extents) > 1:
            clash = " and ".join(map(str, sorted(extents)))
            hint = "shapes align at the last axis; reshape a [C] operand to [C,1,1] to meet NCHW"
            raise type_error(op, f"extents {clash} meet at axis {axis - rank}", *inputs, hint=hint)
        shape.append(extents.pop() if extents else 1)
    return tuple(shape)


def summed_axes(shape: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of `shape` along which a tensor of shape `target` was repeated."""
    added = len(shape) - len(target)
    return tuple(i for i, n in enumerate(shape) if i < added or target[i - added] == 1 != n)


def sum_to(build: GradientBuilder, gradient: Value, target: TensorType) -> Value:
    """Sum a gradient over all axes along which `target` was broadcast, so that it has the type of `target`."""
    axes = summed_axes(gradient.type.shape, target.shape)
    if axes:
        gradient = build.emit(ReduceSum(axes), gradient)
    if gradient.type.shape != target.shape:
        gradient = build.emit(Reshape(target.shape), gradient)
    return gradient
