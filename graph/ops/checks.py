"""Checks that the type rules of several ops share: number of operands, dtypes, axes."""

from __future__ import annotations

from edgec.graph.ops.base import Op, type_error
from edgec.graph.types import DType, TensorType

CAST_HINT = "cast one operand: ops never convert between dtypes"


def operands(op: Op, inputs: tuple[TensorType, ...], count: int) -> tuple[TensorType, ...]:
    """`inputs`, if there are exactly `count` of them."""
    if len(inputs) != count:
        raise type_error(op, f"takes {count} operand{'s' * (count != 1)}, {len(inputs)} given", *inputs)
    return inputs


def require_same_dtype(op: Op, *inputs: TensorType) -> None:
    if len({t.dtype for t in inputs}) > 1:
        names = ", ".join(t.dtype.value for t in inputs)
        raise type_error(op, f"operands differ in dtype: {names}", *inputs, hint=CAST_HINT)


def require_float(op: Op, *inputs: TensorType) -> None:
    for kind in inputs:
        if not kind.dtype.is_float:
            raise type_error(op, f"is defined on floats, not on {kind.dtype.value}", *inputs)


def require_number(op: Op, *inputs: TensorType) -> None:
    for kind in inputs:
        if kind.dtype is DType.BOOL:
            raise type_error(op, "is defined on numbers, not on bool", *inputs)


def require_same_type(op: Op, *inputs: TensorType) -> None:
    if len(set(inputs)) > 1:
        raise type_error(op, "operands must have one dtype and shape", *inputs, hint="gradients never broadcast")


def require_per_axis(op: Op, name: str, values: tuple[int, ...], x: TensorType) -> None:
    """An attribute with one entry for each axis of `x`."""
    if len(values) != x.rank:
        raise type_error(
            op, f"{name}={values} has {len(values)} entries for rank {x.rank}", x, hint="give one entry for each axis"
        )


def require_axis(op: Op, axis: int, x: TensorType) -> None:
    """An axis in its one spelling: counted from the front."""
    if not 0 <= axis < x.rank:
        hint = f"count it from the front: {axis + x.rank}" if -x.rank <= axis < 0 else f"the rank is {x.rank}"
        raise type_error(op, f"axis {axis} is out of range", x, hint=hint)


def require_shape(op: Op, shape: tuple[int, ...], *inputs: TensorType) -> None:
    if any(extent < 0 for extent in shape):
        raise type_error(
            op, f"shape {shape} has a negative extent", *inputs, hint="shapes are static: resolve -1 before building"
        )


def require_axes(op: Op, axes: tuple[int, ...], x: TensorType) -> None:
    """Axes in their one spelling: each once, in order, counted from the front."""
    for axis in axes:
        require_axis(op, axis, x)
    if list(axes) != sorted(set(axes)):
        raise type_error(op, f"axes {axes} are not ascending", x, hint="name each axis once, in order")
