"""Functions of numbers: roots, logarithms, circular and hyperbolic ones, rounding; and activations made of them."""

from __future__ import annotations

import math
from functools import partial, reduce

from edgec.frontend.onnx.context import Context, Converted
from edgec.frontend.onnx.model import Node
from edgec.frontend.onnx.ops_elementwise import operands
from edgec.frontend.onnx.ops_logic import cast
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
from edgec.graph.ops.clip import Clip
from edgec.graph.ops.cos import Cos
from edgec.graph.ops.cosh import Cosh
from edgec.graph.ops.div import Div
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
from edgec.graph.types import DType


def _unary(op: Op, ctx: Context, node: Node) -> Converted:
    return ctx.emit(node, op, ctx.value(node, 0))


def _modulo(ctx: Context, node: Node) -> Converted:
    a, b = operands(ctx, node, 2)
    return ctx.emit(node, Fmod() if node.get_int("fmod", 0) else Mod(), a, b)


def _pow(ctx: Context, node: Node) -> Converted:
    """The result has the type of the base, whatever that of the exponent is."""
    entry = ctx.entry(node, 1)
    if not isinstance(entry, Value) and entry.array.size == 1 and ctx.type(node, 1).rank <= ctx.type(node, 0).rank:
        exponent = float(entry.array.reshape(()))
        if exponent in (1, 2, 3):
            x = ctx.value(node, 0)
            return reduce(partial(ctx.emit, node, Mul()), [x] * (int(exponent) - 1), x)
    a, b = operands(ctx, node, 2)
    dtype = a.type.dtype
    if b.type.dtype is dtype:
        return ctx.emit(node, Pow(), a, b)
    if dtype.is_float or not b.type.dtype.is_float:
        return ctx.emit(node, Pow(), a, cast(ctx, node, b, dtype))
    wide = ctx.emit(node, Pow(), cast(ctx, node, a, DType.F32), cast(ctx, node, b, DType.F32))
    return cast(ctx, node, wide, dtype)


def _extremum(op: Op, ctx: Context, node: Node) -> Converted:
    """Of one tensor and numbers, a clip: it needs no second operand."""
    entries = [ctx.entry(node, index) for index in range(len(node.inputs))]
    computed = [index for index, entry in enumerate(entries) if isinstance(entry, Value)]
    numbers = [entry.array for entry in entries if not isinstance(entry, Value)]
    if len(computed) == 1 and numbers and all(array.size == 1 for array in numbers):
        y = ctx.value(node, computed[0])
        bounds = [float(array.reshape(())) for array in numbers]
        if all(array.ndim <= y.type.rank for array in numbers) and not any(map(math.isnan, bounds)):
            clip = Clip(-math.inf, min(bounds)) if isinstance(op, Minimum) else Clip(max(bounds), math.inf)
            return ctx.emit(node, clip, y)
    first, *rest = operands(ctx, node)
    return reduce(partial(ctx.emit, node, op), rest, first)


def softplus(ctx: Context, node: Node, x: Value) -> Value:
    """log(1 + exp(x)), as max(x, 0) + log(1 + exp(-|x|)), which cannot overflow."""
    one = ctx.number(node, 1, x)
    decay = ctx.emit(node, Exp(), ctx.emit(node, Neg(), ctx.emit(node, Abs(), x)))
    return ctx.emit(node, Add(), ctx.emit(node, Relu(), x), ctx.emit(node, Log(), ctx.emit(node, Add(), one, decay)))


def _softplus(ctx: Context, node: Node) -> Converted:
    return softplus(ctx, node, ctx.value(node, 0))


def softsign(ctx: Context, node: Node, x: Value) -> Value:
    """x / (1 + |x|)."""
    return ctx.emit(node, Div(), x, ctx.emit(node, Add(), ctx.number(node, 1, x), ctx.emit(node, Abs(), x)))


def _softsign(ctx: Context, node: Node) -> Converted:
    return softsign(ctx, node, ctx.value(node, 0))


def _mish(ctx: Context, node: Node) -> Converted:
    """x * tanh(softplus(x))."""
    x = ctx.value(node, 0)
    return ctx.emit(node, Mul(), x, ctx.emit(node, Tanh(), softplus(ctx, node, x)))


def _gelu(ctx: Context, node: Node) -> Converted:
    by_tanh = node.get_str("approximate", "none") == "tanh"
    return (tanh_gelu if by_tanh else gelu)(ctx, node, ctx.value(node, 0))


def gelu(ctx: Context, node: Node, x: Value) -> Value:
    """x / 2 * (1 + erf(x / sqrt(2)))."""
    return _gated(ctx, node, x, ctx.emit(node, Erf(), _times(ctx, node, math.sqrt(0.5), x)))


def tanh_gelu(ctx: Context, node: Node, x: Value) -> Value:
    """The same with tanh(sqrt(2 / pi) * (x + 0.044715 x^3)) in place of erf."""
    cube = ctx.emit(node, Mul(), ctx.emit(node, Mul(), x, x), x)
    inner = ctx.emit(node, Add(), x, _times(ctx, node, 0.044715, cube))
    return _gated(ctx, node, x, ctx.emit(node, Tanh(), _times(ctx, node, math.sqrt(2 / math.pi), inner)))


def _gated(ctx: Context, node: Node, x: Value, gate: Value) -> Value:
    """x / 2 * (1 + gate)."""
    return ctx.emit(node, Mul(), _times(ctx, node, 0.5, x), ctx.emit(node, Add(), ctx.number(node, 1, x), gate))


def _times(ctx: Context, node: Node, factor: float, x: Value) -> Value:
    return ctx.emit(node, Mul(), x, ctx.number(node, factor, x))


def _thresholded_relu(ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    passes = ctx.emit(node, Less(), ctx.number(node, node.get_float("alpha", 1.0), x), x)
    return ctx.emit(node, Where(), passes, x, ctx.number(node, 0, x))


def _shrink(ctx: Context, node: Node) -> Converted:
    """x + bias below -lambd, x - bias above lambd, 0 between."""
    x = ctx.value(node, 0)
    bias, limit = node.get_float("bias", 0.0), node.get_float("lambd", 0.5)
    zero = ctx.number(node, 0, x)
    low = ctx.emit(node, Less(), x, ctx.number(node, -limit, x))
    high = ctx.emit(node, Less(), ctx.number(node, limit, x), x)
    above = ctx.emit(node, Where(), high, ctx.emit(node, Sub(), x, ctx.number(node, bias, x)), zero)
    return ctx.emit(node, Where(), low, ctx.emit(node, Add(), x, ctx.number(node, bias, x)), above)


MATH = {
    "Neg": partial(_unary, Neg()),
    "Abs": partial(_unary, Abs()),
    "Sign": partial(_unary, Sign()),
    "Floor": partial(_unary, Floor()),
    "Ceil": partial(_unary, Ceil()),
    "Round": partial(_unary, Round()),
    "Sqrt": partial(_unary, Sqrt()),
    "Log": partial(_unary, Log()),
    "Erf": partial(_unary, Erf()),
    "Tanh": partial(_unary, Tanh()),
    "Sin": partial(_unary, Sin()),
    "Cos": partial(_unary, Cos()),
    "Tan": partial(_unary, Tan()),
    "Asin": partial(_unary, Asin()),
    "Acos": partial(_unary, Acos()),
    "Atan": partial(_unary, Atan()),
    "Sinh": partial(_unary, Sinh()),
    "Cosh": partial(_unary, Cosh()),
    "Asinh": partial(_unary, Asinh()),
    "Acosh": partial(_unary, Acosh()),
    "Atanh": partial(_unary, Atanh()),
    "Mod": _modulo,
    "Pow": _pow,
    "Min": partial(_extremum, Minimum()),
    "Max": partial(_extremum, Maximum()),
    "Softplus": _softplus,
    "Softsign": _softsign,
    "Mish": _mish,
    "Gelu": _gelu,
    "ThresholdedRelu": _thresholded_relu,
    "Shrink": _shrink,
}
