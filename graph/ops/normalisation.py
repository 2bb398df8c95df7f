"""What normalisations over trailing axes have in common: operands, and values of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.graph.ops.base import GradientBuilder, Op, type_error
from edgec.graph.ops.checks import require_axis, require_float, require_same_dtype
from edgec.graph.ops.reshape import Reshape
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


def check_normalised(op: Op, axis: int, epsilon: float, inputs: tuple[TensorType, ...], most: int) -> TensorType:
    """x, if it and its optional factors of shape x.shape[axis:] fit one another."""
    if not 1 <= len(inputs) <= most:
        raise type_error(op, f"takes 1 to {most} operands, {len(inputs)} given", *inputs)
    x, *parts = inputs
    require_same_dtype(op, *inputs)
    require_float(op, *inputs)
    require_axis(op, axis, x)
    if any(part.shape != x.shape[axis:] for part in parts):
        raise type_error(op, f"factors must have the shape {list(x.shape[axis:])}", *inputs)
    if 0 in x.shape[axis:]:
        raise type_error(op, "the mean is one of no elements", *inputs)
    if epsilon < 0:
        raise type_error(op, f"epsilon={epsilon} must not be negative", *inputs)
    return x


def per_row(build: GradientBuilder, row: Value, x: TensorType) -> Value:
    """A value for each row, in a shape that broadcasts to `x`."""
    return build.emit(Reshape((*row.type.shape, *(1,) * (x.rank - row.type.rank))), row)


def check_normalised_grad(op: Op, axis: int, inputs: tuple[TensorType, ...], statistics: int) -> TensorType:
    """x, if dy, `statistics` values for each row, and an optional scale fit it."""
    if len(inputs) - 2 - statistics not in (0, 1):
        raise type_error(op, f"takes dy, x, {statistics} statistics and perhaps gamma; {len(inputs)} given", *inputs)
    dy, *rest = inputs
    x = check_normalised(op, axis, 0.0, (rest[0], *rest[1 + statistics :]), 2)
    require_same_dtype(op, *inputs)
    if dy != x or any(row.shape != x.shape[:axis] for row in rest[1 : 1 + statistics]):
        raise type_error(op, f"dy must be like x, and the statistics have the shape {list(x.shape[:axis])}", *inputs)
    return x
