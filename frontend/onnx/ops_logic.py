"""Comparisons, logic, bits, choices and conversions between element types."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from edgec.frontend.onnx.context import Context, Converted
from edgec.frontend.onnx.model import Node, Opaque, Unsupported
from edgec.frontend.onnx.ops_elementwise import operands
from edgec.frontend.onnx.tensors import numpy_dtype
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
from edgec.graph.ops.shift_left import ShiftLeft
from edgec.graph.ops.shift_right import ShiftRight
from edgec.graph.ops.where import Where
from edgec.graph.types import DType


def _pair(op: Op, ctx: Context, node: Node) -> Converted:
    a, b = operands(ctx, node, 2)
    return ctx.emit(node, op, a, b)


def _swapped(op: Op, ctx: Context, node: Node) -> Converted:
    a, b = operands(ctx, node, 2)
    return ctx.emit(node, op, b, a)


def _not(ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    return ctx.emit(node, BitXor(), x, ctx.number(node, True, x))


def _bitwise_not(ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    if x.type.dtype is DType.BOOL or x.type.dtype.is_float:
        raise Unsupported(f"flips bits of {x.type.dtype.value}")
    ones = 255 if x.type.dtype is DType.U8 else -1
    return ctx.emit(node, BitXor(), x, ctx.number(node, ones, x))


def _bit_shift(ctx: Context, node: Node) -> Converted:
    left = node.get_str("direction") == "LEFT"
    return _pair(ShiftLeft() if left else ShiftRight(), ctx, node)


def _is_nan(ctx: Context, node: Node) -> Converted:
    """Not (x == x)."""
    x = ctx.value(node, 0)
    same = ctx.emit(node, Equal(), x, x)
    return ctx.emit(node, BitXor(), same, ctx.number(node, True, same))


def _is_inf(ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    positive, negative = node.get_int("detect_positive", 1), node.get_int("detect_negative", 1)
    if positive and negative:
        return ctx.emit(node, Equal(), ctx.emit(node, Abs(), x), ctx.number(node, math.inf, x))
    if not (positive or negative):
        return ctx.emit(node, Less(), ctx.number(node, math.inf, x), x)
    return ctx.emit(node, Equal(), x, ctx.number(node, math.inf if positive else -math.inf, x))


def _where(ctx: Context, node: Node) -> Converted:
    return ctx.emit(node, Where(), *operands(ctx, node, 3))


def cast(ctx: Context, node: Node, x: Value, dtype: DType) -> Value:
    """`x` in another element type; itself if it has that."""
    return x if x.type.dtype is dtype else ctx.emit(node, Cast(dtype.value), x)


def _cast(ctx: Context, node: Node) -> Converted:
    dtype = numpy_dtype(node.get_int("to")) if node.op == "Cast" else ctx.type(node, 1).dtype.numpy
    if isinstance(dtype, Opaque):
        raise Unsupported(f"makes {dtype.what}")
    if np.dtype(dtype) == ctx.type(node, 0).dtype.numpy:
        return ctx.entry(node, 0)
    try:
        to = DType.of(dtype)
    except KeyError:
        raise Unsupported(f"makes a tensor of dtype {dtype}") from None
    return cast(ctx, node, ctx.value(node, 0), to)


LOGIC = {
    "Equal": partial(_pair, Equal()),
    "Less": partial(_pair, Less()),
    "LessOrEqual": partial(_pair, LessEqual()),
    "Greater": partial(_swapped, Less()),
    "GreaterOrEqual": partial(_swapped, LessEqual()),
    "And": partial(_pair, BitAnd()),
    "Or": partial(_pair, BitOr()),
    "Xor": partial(_pair, BitXor()),
    "Not": _not,
    "BitwiseAnd": partial(_pair, BitAnd()),
    "BitwiseOr": partial(_pair, BitOr()),
    "BitwiseXor": partial(_pair, BitXor()),
    "BitwiseNot": _bitwise_not,
    "BitShift": _bit_shift,
    "IsNaN": _is_nan,
    "IsInf": _is_inf,
    "Where": _where,
    "Cast": _cast,
    "CastLike": _cast,
}
