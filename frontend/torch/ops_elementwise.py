"""Elementwise operators: arithmetic with broadcasting and torch's type promotion, activations, and what is neutral."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch

from edgec.frontend.torch.call import TORCH_DTYPES, Call, Known, Ref, Unsupported
from edgec.frontend.torch.context import Context, Converted, to_dtype
from edgec.frontend.torch.ops_movement import expand, reshape
from edgec.graph.ir import Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.base import Op
from edgec.graph.ops.bit_and import BitAnd
from edgec.graph.ops.bit_or import BitOr
from edgec.graph.ops.cast import Cast
from edgec.graph.ops.clip import Clip
from edgec.graph.ops.div import Div
from edgec.graph.ops.dropout import Dropout
from edgec.graph.ops.exp import Exp
from edgec.graph.ops.hard_sigmoid import HardSigmoid
from edgec.graph.ops.hard_swish import HardSwish
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.relu import Relu
from edgec.graph.ops.sigmoid import Sigmoid
from edgec.graph.ops.sub import Sub
from edgec.graph.types import DType


def operand(ctx: Context, call: Call, name: str, dtype: DType | None = None) -> Value:
    """A tensor or number as a value of `dtype`, by default that of the result."""
    dtype = dtype or call.type.dtype
    argument = call.arguments[name]
    if not isinstance(argument, Ref):
        return ctx.constant(call, np.array(ctx.number(call, name)), dtype)
    entry = ctx.resolve(argument)
    if isinstance(entry, Known):
        return ctx.as_value(to_dtype(entry, dtype))
    return entry if entry.type.dtype is dtype else ctx.emit(call, Cast(dtype.value), entry)


def _binary(op: Op, ctx: Context, call: Call, left: str = "self", right: str = "other") -> Converted:
    a, b = operand(ctx, call, left), operand(ctx, call, right)
    if call.arguments.get("alpha", 1) != 1:
        b = ctx.emit(call, Mul(), b, ctx.scalar(call, ctx.number(call, "alpha"), b))
    return ctx.emit(call, op, a, b)


def _product(ctx: Context, call: Call) -> Converted:
    """Of truth values: whether both are true."""
    return _binary(BitAnd() if call.type.dtype is DType.BOOL else Mul(), ctx, call)


def _sum(ctx: Context, call: Call) -> Converted:
    """Of truth values: whether one is true."""
    return _binary(BitOr() if call.type.dtype is DType.BOOL else Add(), ctx, call)


def _rsub(ctx: Context, call: Call) -> Converted:
    a = operand(ctx, call, "self")
    if call.arguments.get("alpha", 1) != 1:
        a = ctx.emit(call, Mul(), a, ctx.scalar(call, ctx.number(call, "alpha"), a))
    return ctx.emit(call, Sub(), operand(ctx, call, "other"), a)


def _unary(op: Op, ctx: Context, call: Call) -> Converted:
    return ctx.emit(call, op, operand(ctx, call, "self"))


def _reciprocal(ctx: Context, call: Call) -> Converted:
    x = operand(ctx, call, "self")
    return ctx.emit(call, Div(), ctx.scalar(call, 1, x), x)


def _clamp(low: str, high: str, ctx: Context, call: Call) -> Converted:
    bounds = [
        ctx.number(call, name) if name and ctx.has(call, name) else limit
        for name, limit in ((low, -math.inf), (high, math.inf))
    ]
    x = operand(ctx, call, "self")
    # torch: the upper bound wins.
    return ctx.emit(call, Clip(float(min(bounds)), float(bounds[1])), x)


def _silu(ctx: Context, call: Call) -> Converted:
    x = operand(ctx, call, "self")
    return ctx.emit(call, Mul(), x, ctx.emit(call, Sigmoid(), x))


def _hard_tanh(ctx: Context, call: Call) -> Converted:
    op = Clip(float(ctx.number(call, "min_val")), float(ctx.number(call, "max_val")))
    return ctx.emit(call, op, operand(ctx, call, "self"))


def _leaky(ctx: Context, call: Call, x: Value, slope: Value) -> Value:
    """relu(x) + slope * min(x, 0)."""
    below = ctx.emit(call, Mul(), ctx.emit(call, Clip(-math.inf, 0.0), x), slope)
    return ctx.emit(call, Add(), ctx.emit(call, Relu(), x), below)


def _leaky_relu(ctx: Context, call: Call) -> Converted:
    x = operand(ctx, call, "self")
    return _leaky(ctx, call, x, ctx.scalar(call, ctx.number(call, "negative_slope"), x))


def _rrelu(ctx: Context, call: Call) -> Converted:
    if ctx.flag(call, "training"):
        raise Unsupported("random numbers at run time; export the module after module.eval()")
    x = operand(ctx, call, "self")
    slope = (ctx.number(call, "lower") + ctx.number(call, "upper")) / 2
    return _leaky(ctx, call, x, ctx.scalar(call, slope, x))


def _prelu(ctx: Context, call: Call) -> Converted:
    x, slope = operand(ctx, call, "self"), ctx.value(call, "weight")
    return _leaky(ctx, call, x, per_channel(ctx, call, reshape(ctx, call, slope, (slope.type.size,)), x.type.rank))


def per_channel(ctx: Context, call: Call, vector: Value, rank: int) -> Value:
    """A vector over channels, [C], to broadcast against [N,C,...] of `rank`: [C,1,...]."""
    if vector.type.size == 1 or rank <= 2:
        return vector
    return reshape(ctx, call, vector, (vector.type.size, *(1,) * (rank - 2)))


def _exponential_unit(ctx: Context, call: Call, alpha: float, scale: float, inner: float) -> Value:
    """scale * (relu(x) + alpha * (exp(inner * min(x, 0)) - 1))."""
    x = operand(ctx, call, "self")
    below = ctx.emit(call, Clip(-math.inf, 0.0), x)
    if inner != 1:
        below = ctx.emit(call, Mul(), below, ctx.scalar(call, inner, x))
    y = ctx.emit(call, Sub(), ctx.emit(call, Exp(), below), ctx.scalar(call, 1, x))
    if alpha != 1:
        y = ctx.emit(call, Mul(), y, ctx.scalar(call, alpha, x))
    y = ctx.emit(call, Add(), ctx.emit(call, Relu(), x), y)
    return y if scale == 1 else ctx.emit(call, Mul(), y, ctx.scalar(call, scale, x))


def _elu(ctx: Context, call: Call) -> Converted:
    return _exponential_unit(ctx, call, *(ctx.number(call, name) for name in ("alpha", "scale", "input_scale")))


def _celu(ctx: Context, call: Call) -> Converted:
    alpha = ctx.number(call, "alpha")
    if alpha <= 0:
        raise Unsupported(f"alpha is {alpha:g}; it must be positive")
    return _exponential_unit(ctx, call, alpha, 1.0, 1 / alpha)


def _alias(ctx: Context, call: Call) -> Converted:
    return ctx.entry(call, "input" if "input" in call.arguments else "self")


def _copy(ctx: Context, call: Call) -> Converted:
    """`src` in the dtype and shape of the result."""
    return expand(ctx, call, operand(ctx, call, "src"), call.shape)


def _dropout(ctx: Context, call: Call, shared: int = 0) -> Converted:
    if ctx.flag(call, "train"):
        raise Unsupported("dropout in training mode; export the module after module.eval()")
    entry, rate = _alias(ctx, call), ctx.number(call, "p")
    return ctx.emit(call, Dropout(rate, shared), entry) if isinstance(entry, Value) and rate else entry


def _feature_dropout(ctx: Context, call: Call) -> Converted:
    """Whole channels of a feature map (Dropout2d)."""
    return _dropout(ctx, call, shared=max(0, ctx.type(call, "input").rank - 2))


def _filled(number: float | None, ctx: Context, call: Call) -> Converted:
    """A tensor like another in shape alone: known, whatever that one holds."""
    number = ctx.number(call, "fill_value") if number is None else number
    return Known(torch.full(call.shape, number, dtype=TORCH_DTYPES[call.type.dtype]))


ELEMENTWISE = {
    "aten.add.Tensor": _sum,
    "aten.add.Scalar": _sum,
    "aten.sub.Tensor": partial(_binary, Sub()),
    "aten.sub.Scalar": partial(_binary, Sub()),
    "aten.rsub.Tensor": _rsub,
    "aten.rsub.Scalar": _rsub,
    "aten.mul.Tensor": _product,
    "aten.mul.Scalar": _product,
    "aten.div.Tensor": partial(_binary, Div()),
    "aten.div.Scalar": partial(_binary, Div()),
    "aten.reciprocal.default": _reciprocal,
    "aten.square.default": lambda ctx, call: ctx.emit(call, Mul(), *(operand(ctx, call, "self"),) * 2),
    "aten.exp.default": partial(_unary, Exp()),
    "aten.relu.default": partial(_unary, Relu()),
    "aten.relu6.default": partial(_unary, Clip(0.0, 6.0)),
    "aten.sigmoid.default": partial(_unary, Sigmoid()),
    "aten.silu.default": _silu,
    "aten.hardswish.default": partial(_unary, HardSwish()),
    "aten.hardsigmoid.default": partial(_unary, HardSigmoid(alpha=1 / 6, beta=0.5)),
    "aten.hardtanh.default": _hard_tanh,
    "aten.clamp.default": partial(_clamp, "min", "max"),
    "aten.clamp_min.default": partial(_clamp, "min", ""),
    "aten.clamp_max.default": partial(_clamp, "", "max"),
    "aten.leaky_relu.default": _leaky_relu,
    "aten.rrelu.default": _rrelu,
    "aten.prelu.default": _prelu,
    "aten.elu.default": _elu,
    "aten.celu.default": _celu,
    "aten.dropout.default": _dropout,
    "aten.feature_dropout.default": _feature_dropout,
    "aten.alias.default": _alias,
    "aten.clone.default": _alias,
    "aten.detach.default": _alias,
    "aten.full_like.default": partial(_filled, None),
    "aten.zeros_like.default": partial(_filled, 0.0),
    "aten.ones_like.default": partial(_filled, 1.0),
    "aten.new_full.default": partial(_filled, None),
    "aten.new_zeros.default": partial(_filled, 0.0),
    "aten.new_ones.default": partial(_filled, 1.0),
    "aten.copy.default": _copy,
}
