"""Comparisons, logic, choices, and conversions between element types."""

from __future__ import annotations

import math
from functools import partial

import torch

from edgec.frontend.torch.call import TORCH_DTYPES, Call, Known, Ref, Unsupported, dtype_of
from edgec.frontend.torch.context import Context, Converted, to_dtype
from edgec.frontend.torch.ops_elementwise import operand
from edgec.graph.ir import Value
from edgec.graph.ops.abs import Abs
from edgec.graph.ops.base import Op
from edgec.graph.ops.bit_and import BitAnd
from edgec.graph.ops.bit_or import BitOr
from edgec.graph.ops.bit_xor import BitXor
from edgec.graph.ops.cast import Cast
from edgec.graph.ops.equal import Equal
from edgec.graph.ops.less import Less
from edgec.graph.ops.less_equal import LessEqual
from edgec.graph.ops.reduce_max import ReduceMax
from edgec.graph.ops.reduce_min import ReduceMin
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.shift_left import ShiftLeft
from edgec.graph.ops.shift_right import ShiftRight
from edgec.graph.ops.where import Where
from edgec.graph.types import DType


def _common(ctx: Context, call: Call, other: str = "other") -> DType:
    """The element type in which torch compares `self` and `other`."""
    sides = []
    for name in ("self", other):
        argument = call.arguments[name]
        if isinstance(argument, Ref):
            kind = ctx.type(call, name)
            sides.append(torch.empty((1,) * kind.rank, dtype=TORCH_DTYPES[kind.dtype]))
        else:
            sides.append(argument)
    return dtype_of(torch.result_type(*sides))


def _not(ctx: Context, call: Call, x: Value) -> Value:
    return ctx.emit(call, BitXor(), x, ctx.scalar(call, True, x))


def _compared(op: Op, ctx: Context, call: Call) -> Converted:
    dtype = _common(ctx, call)
    return ctx.emit(call, op, operand(ctx, call, "self", dtype), operand(ctx, call, "other", dtype))


def _compared_backwards(op: Op, ctx: Context, call: Call) -> Converted:
    dtype = _common(ctx, call)
    return ctx.emit(call, op, operand(ctx, call, "other", dtype), operand(ctx, call, "self", dtype))


def _differ(ctx: Context, call: Call) -> Converted:
    return _not(ctx, call, _compared(Equal(), ctx, call))


def _not_a_number(ctx: Context, call: Call) -> Converted:
    x = operand(ctx, call, "self", ctx.type(call, "self").dtype)
    return _not(ctx, call, ctx.emit(call, Equal(), x, x))


def _infinite(ctx: Context, call: Call) -> Converted:
    x = operand(ctx, call, "self", ctx.type(call, "self").dtype)
    if not x.type.dtype.is_float:
        raise Unsupported(f"of {x.type.dtype.value}")
    return ctx.emit(call, Equal(), ctx.emit(call, Abs(), x), ctx.scalar(call, math.inf, x))


def _bits(op: Op, ctx: Context, call: Call) -> Converted:
    return ctx.emit(call, op, operand(ctx, call, "self"), operand(ctx, call, "other"))


def _inverted(ctx: Context, call: Call) -> Converted:
    x = operand(ctx, call, "self")
    ones = True if x.type.dtype is DType.BOOL else -1
    return ctx.emit(call, BitXor(), x, ctx.scalar(call, ones, x))


def _sorted_place(ctx: Context, call: Call) -> Converted:
    """How many of the boundaries lie below each number, or at it if `right`."""
    named = "boundaries" if "boundaries" in call.arguments else "sorted_sequence"
    if ctx.has(call, "sorter"):
        raise Unsupported("boundaries that are not sorted")
    dtype = _common(ctx, call, named)
    x, boundaries = operand(ctx, call, "self", dtype), operand(ctx, call, named, dtype)
    column = ctx.emit(call, Reshape((*x.type.shape, 1)), x)
    if boundaries.type.rank > 1:
        rows = (*boundaries.type.shape[:-1], 1, boundaries.type.shape[-1])
        boundaries = ctx.emit(call, Reshape(rows), boundaries)
    right = ctx.flag(call, "right") or call.arguments.get("side") == "right"
    below = ctx.emit(call, LessEqual() if right else Less(), boundaries, column)
    counted = ctx.emit(call, Cast(call.type.dtype.value), below)
    return ctx.emit(call, ReduceSum((counted.type.rank - 1,)), counted)


def _where(ctx: Context, call: Call) -> Converted:
    condition = operand(ctx, call, "condition", DType.BOOL)
    return ctx.emit(call, Where(), condition, operand(ctx, call, "self"), operand(ctx, call, "other"))


def _some(kind: type[ReduceMax] | type[ReduceMin], ctx: Context, call: Call) -> Converted:
    """Whether any, or all, of the elements are true: the largest or smallest of them as 0 and 1."""
    x = operand(ctx, call, "self", DType.BOOL)
    if not x.type.rank:
        return x
    ones = ctx.emit(call, Cast("i32"), x)
    axes = ctx.axes(call, "dim", x.type.rank)
    return ctx.emit(call, Cast("bool"), ctx.emit(call, kind(axes, ctx.flag(call, "keepdim")), ones))


def _cast(ctx: Context, call: Call) -> Converted:
    entry = ctx.entry(call, "self")
    return to_dtype(entry, call.type.dtype) if isinstance(entry, Known) else operand(ctx, call, "self")


LOGIC = {
    **{
        f"aten.{name}.{side}": partial(convert, op)
        for side in ("Scalar", "Tensor")
        for name, convert, op in (
            ("eq", _compared, Equal()),
            ("lt", _compared, Less()),
            ("le", _compared, LessEqual()),
            ("gt", _compared_backwards, Less()),
            ("ge", _compared_backwards, LessEqual()),
        )
    },
    "aten.ne.Scalar": _differ,
    "aten.ne.Tensor": _differ,
    "aten.isnan.default": _not_a_number,
    "aten.isinf.default": _infinite,
    "aten.logical_and.default": partial(_bits, BitAnd()),
    "aten.logical_or.default": partial(_bits, BitOr()),
    "aten.logical_xor.default": partial(_bits, BitXor()),
    "aten.logical_not.default": _inverted,
    **{
        f"aten.{name}.{side}": partial(_bits, op)
        for side in ("Scalar", "Tensor")
        for name, op in (
            ("bitwise_and", BitAnd()),
            ("bitwise_or", BitOr()),
            ("bitwise_xor", BitXor()),
            ("__lshift__", ShiftLeft()),
            ("__rshift__", ShiftRight()),
        )
    },
    "aten.bitwise_left_shift.Tensor": partial(_bits, ShiftLeft()),
    "aten.bitwise_left_shift.Tensor_Scalar": partial(_bits, ShiftLeft()),
    "aten.bitwise_right_shift.Tensor": partial(_bits, ShiftRight()),
    "aten.bitwise_right_shift.Tensor_Scalar": partial(_bits, ShiftRight()),
    "aten.bucketize.Tensor": _sorted_place,
    "aten.searchsorted.Tensor": _sorted_place,
    "aten.bitwise_not.default": _inverted,
    "aten.where.self": _where,
    "aten.any.default": partial(_some, ReduceMax),
    "aten.any.dim": partial(_some, ReduceMax),
    "aten.any.dims": partial(_some, ReduceMax),
    "aten.all.default": partial(_some, ReduceMin),
    "aten.all.dim": partial(_some, ReduceMin),
    "aten._to_copy.default": _cast,
}
