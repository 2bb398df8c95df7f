"""Functions of numbers: roots, powers, logarithms, circular functions, rounding, and activations made of them."""

from __future__ import annotations

import math
from functools import partial

from edgec.frontend.torch.call import Call, Unsupported
from edgec.frontend.torch.context import Context, Converted
from edgec.frontend.torch.ops_elementwise import operand
from edgec.frontend.torch.ops_movement import reshape
from edgec.graph.ir import Value
from edgec.graph.ops.abs import Abs
from edgec.graph.ops.acos import Acos
from edgec.graph.ops.acosh import Acosh
from edgec.graph.ops.add import Add
from edgec.graph.ops.asin import Asin
from edgec.graph.ops.asinh import Asinh
from edgec.graph.ops.atan import Atan
from edgec.graph.ops.atanh import Atanh
from edgec.graph.ops.base import Op
from edgec.graph.ops.ceil import Ceil
from edgec.graph.ops.cos import Cos
from edgec.graph.ops.cosh import Cosh
from edgec.graph.ops.div import Div
from edgec.graph.ops.equal import Equal
from edgec.graph.ops.erf import Erf
from edgec.graph.ops.exp import Exp
from edgec.graph.ops.floor import Floor
from edgec.graph.ops.fmod import Fmod
from edgec.graph.ops.less import Less
from edgec.graph.ops.log import Log
from edgec.graph.ops.maximum import Maximum
from edgec.graph.ops.minimum import Minimum
from edgec.graph.ops.mod import Mod
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.neg import Neg
from edgec.graph.ops.pow import Pow
from edgec.graph.ops.reduce_max import ReduceMax
from edgec.graph.ops.reduce_min import ReduceMin
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.ops.relu import Relu
from edgec.graph.ops.round import Round
from edgec.graph.ops.sign import Sign
from edgec.graph.ops.sin import Sin
from edgec.graph.ops.sinh import Sinh
from edgec.graph.ops.sqrt import Sqrt
from edgec.graph.ops.sub import Sub
from edgec.graph.ops.tan import Tan
from edgec.graph.ops.tanh import Tanh
from edgec.graph.ops.where import Where


def _unary(op: Op, ctx: Context, call: Call) -> Converted:
    return ctx.emit(call, op, operand(ctx, call, "self"))


def _binary(op: Op, ctx: Context, call: Call) -> Converted:
    return ctx.emit(call, op, operand(ctx, call, "self"), operand(ctx, call, "other"))


def _inverse(ctx: Context, call: Call, x: Value) -> Value:
    return ctx.emit(call, Div(), ctx.scalar(call, 1, x), x)


def _rsqrt(ctx: Context, call: Call) -> Converted:
    return _inverse(ctx, call, ctx.emit(call, Sqrt(), operand(ctx, call, "self")))


def _power(ctx: Context, call: Call) -> Converted:
    """By products and roots where the exponent is a number that has them."""
    exponent = ctx.number(call, "exponent")
    x = operand(ctx, call, "self")
    if abs(exponent) == 0.5:
        y = ctx.emit(call, Sqrt(), x)
    elif abs(exponent) in (1, 2, 3):
        y = x
        for _ in range(int(abs(exponent)) - 1):
            y = ctx.emit(call, Mul(), y, x)
    else:
        return ctx.emit(call, Pow(), x, ctx.scalar(call, exponent, x))
    return y if exponent > 0 else _inverse(ctx, call, y)


def _general_power(ctx: Context, call: Call) -> Converted:
    return ctx.emit(call, Pow(), operand(ctx, call, "self"), operand(ctx, call, "exponent"))


def _logarithm(base: float, ctx: Context, call: Call) -> Converted:
    y = ctx.emit(call, Log(), operand(ctx, call, "self"))
    return ctx.emit(call, Mul(), y, ctx.scalar(call, 1 / math.log(base), y))


def _log1p(ctx: Context, call: Call) -> Converted:
    x = operand(ctx, call, "self")
    return ctx.emit(call, Log(), ctx.emit(call, Add(), x, ctx.scalar(call, 1, x)))


def _expm1(ctx: Context, call: Call) -> Converted:
    x = operand(ctx, call, "self")
    return ctx.emit(call, Sub(), ctx.emit(call, Exp(), x), ctx.scalar(call, 1, x))


def _trunc(ctx: Context, call: Call) -> Converted:
    return _toward_zero(ctx, call, operand(ctx, call, "self"))


def _toward_zero(ctx: Context, call: Call, x: Value) -> Value:
    return ctx.emit(call, Mul(), ctx.emit(call, Floor(), ctx.emit(call, Abs(), x)), ctx.emit(call, Sign(), x))


def _divided(ctx: Context, call: Call) -> Converted:
    """A quotient that is rounded. Of integers the op itself rounds to zero."""
    a, b = operand(ctx, call, "self"), operand(ctx, call, "other")
    mode = call.arguments["rounding_mode"]
    if not a.type.dtype.is_float:
        a = ctx.emit(call, Sub(), a, ctx.emit(call, Mod(), a, b)) if mode == "floor" else a
        return ctx.emit(call, Div(), a, b)
    y = ctx.emit(call, Div(), a, b)
    if mode is None:
        return y
    return ctx.emit(call, Floor(), y) if mode == "floor" else _toward_zero(ctx, call, y)


def _gelu(ctx: Context, call: Call) -> Converted:
    """x * Phi(x), or its approximation by tanh (Hendrycks and Gimpel, 2016)."""
    x = operand(ctx, call, "self")
    half = ctx.emit(call, Mul(), x, ctx.scalar(call, 0.5, x))
    if call.arguments.get("approximate") == "tanh":
        cube = ctx.emit(call, Mul(), ctx.emit(call, Mul(), x, x), x)
        inner = ctx.emit(call, Add(), x, ctx.emit(call, Mul(), cube, ctx.scalar(call, 0.044715, x)))
        op, scaled = Tanh(), ctx.emit(call, Mul(), inner, ctx.scalar(call, math.sqrt(2 / math.pi), x))
    else:
        op, scaled = Erf(), ctx.emit(call, Mul(), x, ctx.scalar(call, math.sqrt(0.5), x))
    return ctx.emit(call, Mul(), half, ctx.emit(call, Add(), ctx.emit(call, op, scaled), ctx.scalar(call, 1, x)))


def _soft_plus(ctx: Context, call: Call, x: Value) -> Value:
    """log(1 + exp(x)) = relu(x) + log(1 + exp(-|x|)), which cannot overflow."""
    small = ctx.emit(call, Exp(), ctx.emit(call, Neg(), ctx.emit(call, Abs(), x)))
    rest = ctx.emit(call, Log(), ctx.emit(call, Add(), small, ctx.scalar(call, 1, x)))
    return ctx.emit(call, Add(), ctx.emit(call, Relu(), x), rest)


def _softplus(ctx: Context, call: Call) -> Converted:
    """Above its threshold torch takes x itself, which is what this rounds to there."""
    x, beta = operand(ctx, call, "self"), ctx.number(call, "beta")
    if beta == 1:
        return _soft_plus(ctx, call, x)
    y = _soft_plus(ctx, call, ctx.emit(call, Mul(), x, ctx.scalar(call, beta, x)))
    return ctx.emit(call, Mul(), y, ctx.scalar(call, 1 / beta, x))


def _mish(ctx: Context, call: Call) -> Converted:
    x = operand(ctx, call, "self")
    return ctx.emit(call, Mul(), x, ctx.emit(call, Tanh(), _soft_plus(ctx, call, x)))


def _log_sigmoid(ctx: Context, call: Call) -> Converted:
    x = operand(ctx, call, "self")
    return ctx.emit(call, Neg(), _soft_plus(ctx, call, ctx.emit(call, Neg(), x)))


def _log_sum(ctx: Context, call: Call, x: Value, axes: tuple[int, ...]) -> tuple[Value, Value]:
    """x - max, and the logarithm of the sum of its powers; both with `axes` as extents of 1 where reduced."""
    shifted = ctx.emit(call, Sub(), x, ctx.emit(call, ReduceMax(axes, True), x))
    total = ctx.emit(call, ReduceSum(axes, True), ctx.emit(call, Exp(), shifted))
    return shifted, ctx.emit(call, Log(), total)


def _log_softmax(ctx: Context, call: Call) -> Converted:
    x = operand(ctx, call, "self")
    return ctx.emit(call, Sub(), *_log_sum(ctx, call, x, (ctx.axis(call, "dim", x.type.rank),)))


def _log_sum_exp(ctx: Context, call: Call) -> Converted:
    x = operand(ctx, call, "self")
    axes = ctx.axes(call, "dim", x.type.rank)
    _, total = _log_sum(ctx, call, x, axes)
    return reshape(ctx, call, ctx.emit(call, Add(), total, ctx.emit(call, ReduceMax(axes, True), x)), call.shape)


def _vector_norm(ctx: Context, call: Call) -> Converted:
    x, order = operand(ctx, call, "self"), ctx.number(call, "ord")
    axes, keep = ctx.axes(call, "dim", x.type.rank), ctx.flag(call, "keepdim")
    if order == 2:
        return _euclidean(ctx, call, x, ReduceSum(axes, keep))
    sizes = ctx.emit(call, Abs(), x)
    if abs(order) == math.inf:
        return ctx.emit(call, (ReduceMax if order > 0 else ReduceMin)(axes, keep), sizes)
    if order == 1:
        return ctx.emit(call, ReduceSum(axes, keep), sizes)
    if order <= 0:
        raise Unsupported(f"a norm of order {order:g}")
    powers = ctx.emit(call, Pow(), sizes, ctx.scalar(call, order, x))
    total = ctx.emit(call, ReduceSum(axes, keep), powers)
    return ctx.emit(call, Pow(), total, ctx.scalar(call, 1 / order, x))


def _euclidean(ctx: Context, call: Call, x: Value, total: ReduceSum) -> Value:
    """The root of a sum of squares. The relu changes nothing but the gradient where all is 0, which is 0 as torch's."""
    return ctx.emit(call, Sqrt(), ctx.emit(call, Relu(), ctx.emit(call, total, ctx.emit(call, Mul(), x, x))))


def _distances(ctx: Context, call: Call) -> Converted:
    """torch.cdist: a[...,M,K], b[...,N,K] -> [...,M,N], by differences, which lose no digits."""
    a, b, order = operand(ctx, call, "x1"), operand(ctx, call, "x2"), ctx.number(call, "p")
    rows = reshape(ctx, call, a, (*a.type.shape[:-1], 1, a.type.shape[-1]))
    columns = reshape(ctx, call, b, (*b.type.shape[:-2], 1, *b.type.shape[-2:]))
    x = ctx.emit(call, Sub(), rows, columns)
    axes = (x.type.rank - 1,)
    if order == 2:
        return _euclidean(ctx, call, x, ReduceSum(axes))
    if order not in (1, math.inf):
        raise Unsupported(f"distances of order {order:g}; 1, 2 and inf are supported")
    return ctx.emit(call, (ReduceSum if order == 1 else ReduceMax)(axes), ctx.emit(call, Abs(), x))


def _exp2(ctx: Context, call: Call) -> Converted:
    x = operand(ctx, call, "self")
    return ctx.emit(call, Exp(), ctx.emit(call, Mul(), x, ctx.scalar(call, math.log(2), x)))


def _complementary_erf(ctx: Context, call: Call) -> Converted:
    y = ctx.emit(call, Erf(), operand(ctx, call, "self"))
    return ctx.emit(call, Sub(), ctx.scalar(call, 1, y), y)


def _hypotenuse(ctx: Context, call: Call) -> Converted:
    a, b = operand(ctx, call, "self"), operand(ctx, call, "other")
    squares = (ctx.emit(call, Mul(), x, x) for x in (a, b))
    return ctx.emit(call, Sqrt(), ctx.emit(call, Add(), *squares))


def _angle(ctx: Context, call: Call) -> Converted:
    """atan2(y, x): the angle of the point in (-pi, pi], from that of the smaller coordinate against the larger."""
    y, x = operand(ctx, call, "self"), operand(ctx, call, "other")
    zero = ctx.scalar(call, 0, x)
    sizes = [ctx.emit(call, Abs(), side) for side in (y, x)]
    long, short = ctx.emit(call, Maximum(), *sizes), ctx.emit(call, Minimum(), *sizes)
    # Where both are 0 the angle is 0, not NaN.
    safe = ctx.emit(call, Where(), ctx.emit(call, Equal(), long, zero), ctx.scalar(call, 1, x), long)
    angle = ctx.emit(call, Atan(), ctx.emit(call, Div(), short, safe))
    for condition, whole in (
        (ctx.emit(call, Less(), sizes[1], sizes[0]), math.pi / 2),
        (ctx.emit(call, Less(), x, zero), math.pi),
    ):
        turned = ctx.emit(call, Sub(), ctx.scalar(call, whole, x), angle)
        angle = ctx.emit(call, Where(), condition, turned, angle)
    return ctx.emit(call, Where(), ctx.emit(call, Less(), y, zero), ctx.emit(call, Neg(), angle), angle)


def _clamp_tensors(ctx: Context, call: Call) -> Converted:
    y = operand(ctx, call, "self")
    for name, op in (("min", Maximum()), ("max", Minimum())):
        y = ctx.emit(call, op, y, operand(ctx, call, name)) if ctx.has(call, name) else y
    return y


_FUNCTIONS = {
    "sqrt": Sqrt(),
    "log": Log(),
    "erf": Erf(),
    "tanh": Tanh(),
    "floor": Floor(),
    "ceil": Ceil(),
    "round": Round(),
    "sign": Sign(),
    "abs": Abs(),
    "neg": Neg(),
    "sin": Sin(),
    "cos": Cos(),
    "tan": Tan(),
    "asin": Asin(),
    "acos": Acos(),
    "atan": Atan(),
    "sinh": Sinh(),
    "cosh": Cosh(),
    "asinh": Asinh(),
    "acosh": Acosh(),
    "atanh": Atanh(),
}

MATH = {
    **{f"aten.{name}.default": partial(_unary, op) for name, op in _FUNCTIONS.items()},
    "aten.maximum.default": partial(_binary, Maximum()),
    "aten.minimum.default": partial(_binary, Minimum()),
    "aten.remainder.Scalar": partial(_binary, Mod()),
    "aten.remainder.Tensor": partial(_binary, Mod()),
    "aten.fmod.Scalar": partial(_binary, Fmod()),
    "aten.fmod.Tensor": partial(_binary, Fmod()),
    "aten.rsqrt.default": _rsqrt,
    "aten.pow.Tensor_Scalar": _power,
    "aten.pow.Tensor_Tensor": _general_power,
    "aten.pow.Scalar": _general_power,
    "aten.log2.default": partial(_logarithm, 2.0),
    "aten.log10.default": partial(_logarithm, 10.0),
    "aten.log1p.default": _log1p,
    "aten.expm1.default": _expm1,
    "aten.trunc.default": _trunc,
    "aten.div.Tensor_mode": _divided,
    "aten.gelu.default": _gelu,
    "aten.softplus.default": _softplus,
    "aten.mish.default": _mish,
    "aten.log_sigmoid.default": _log_sigmoid,
    "aten.log_softmax.int": _log_softmax,
    "aten._log_softmax.default": _log_softmax,
    "aten.logsumexp.default": _log_sum_exp,
    "aten.linalg_vector_norm.default": _vector_norm,
    "aten._cdist_forward.default": _distances,
    "aten.exp2.default": _exp2,
    "aten.erfc.default": _complementary_erf,
    "aten.hypot.default": _hypotenuse,
    "aten.atan2.default": _angle,
    "aten.clamp.Tensor": _clamp_tensors,
}
