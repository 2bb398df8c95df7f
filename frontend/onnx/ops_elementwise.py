"""Elementwise operators: arithmetic with broadcasting, activations, and what is neutral at inference."""

from __future__ import annotations

import math
from functools import partial, reduce

from edgec.frontend.onnx.arguments import broadcast
from edgec.frontend.onnx.context import Context, Converted
from edgec.frontend.onnx.model import Node, Opaque, Unsupported
from edgec.frontend.onnx.tensors import numpy_dtype
from edgec.graph.ir import Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.base import Op
from edgec.graph.ops.clip import Clip
from edgec.graph.ops.div import Div
from edgec.graph.ops.exp import Exp
from edgec.graph.ops.hard_sigmoid import HardSigmoid
from edgec.graph.ops.hard_swish import HardSwish
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.relu import Relu
from edgec.graph.ops.sigmoid import Sigmoid
from edgec.graph.ops.sub import Sub


def _operands(ctx: Context, node: Node) -> list[Value]:
    if not node.inputs:
        raise Unsupported("has no inputs")
    shape = broadcast(*(ctx.type(node, index).shape for index in range(len(node.inputs))))
    return [ctx.factor(node, index, shape) for index in range(len(node.inputs))]


def _binary(op: Op, ctx: Context, node: Node) -> Converted:
    if len(node.inputs) != 2:
        raise Unsupported(f"takes 2 inputs, not {len(node.inputs)}")
    a, b = _operands(ctx, node)
    if isinstance(op, Div) and not a.type.dtype.is_float:
        raise Unsupported(f"divides {a.type.dtype.value} at run time")
    return ctx.emit(node, op, a, b)


def _unary(op: Op, ctx: Context, node: Node) -> Converted:
    return ctx.emit(node, op, ctx.value(node, 0))


def _sum(ctx: Context, node: Node) -> Converted:
    first, *rest = _operands(ctx, node)
    return reduce(partial(ctx.emit, node, Add()), rest, first)


def _mean(ctx: Context, node: Node) -> Converted:
    total = _sum(ctx, node)
    return ctx.emit(node, Mul(), total, ctx.number(node, 1 / len(node.inputs), total))


def _neg(ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    return ctx.emit(node, Mul(), x, ctx.number(node, -1, x))


def _reciprocal(ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    return ctx.emit(node, Div(), ctx.number(node, 1, x), x)


def _pow(ctx: Context, node: Node) -> Converted:
    exponent = ctx.known_scalar(node, 1, "the exponent")
    if ctx.type(node, 1).rank > ctx.type(node, 0).rank:
        raise Unsupported("the exponent is of higher rank than the base")
    if exponent not in (1, 2, 3):
        raise Unsupported(f"the exponent is {exponent:g}; 1, 2 and 3 are supported")
    x = ctx.value(node, 0)
    return reduce(partial(ctx.emit, node, Mul()), [x] * (int(exponent) - 1), x)


def _clip(ctx: Context, node: Node) -> Converted:
    low, high = -math.inf, math.inf
    if node.opset < 11:
        low, high = node.get_float("min", low), node.get_float("max", high)
    else:
        low = ctx.known_scalar(node, 1, "the lower bound") if ctx.has(node, 1) else low
        high = ctx.known_scalar(node, 2, "the upper bound") if ctx.has(node, 2) else high
    if (low, high) == (-math.inf, math.inf):
        return ctx.entry(node, 0)
    return ctx.emit(node, Clip(min(low, high), high), ctx.value(node, 0))  # ONNX: the upper bound wins


def _bound(side: str, ctx: Context, node: Node) -> Converted:
    """`Min` or `Max` of one tensor and numbers."""
    tensors = [index for index in range(len(node.inputs)) if isinstance(ctx.entry(node, index), Value)]
    if len(tensors) != 1:
        raise Unsupported(f"{node.op} of {len(tensors)} computed tensors; one and constants are supported")
    y = ctx.value(node, tensors[0])
    for index in range(len(node.inputs)):
        if index in tensors:
            continue
        if ctx.type(node, index).rank > y.type.rank:
            raise Unsupported("a constant of higher rank")
        number = ctx.known_scalar(node, index, "the constant")
        y = ctx.emit(node, Clip(-math.inf, number) if side == "high" else Clip(number, math.inf), y)
    return y


def _hard_sigmoid(ctx: Context, node: Node) -> Converted:
    op = HardSigmoid(alpha=node.get_float("alpha", 0.2), beta=node.get_float("beta", 0.5))
    return ctx.emit(node, op, ctx.value(node, 0))


def _swish(ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    alpha = node.get_float("alpha", 1.0)
    scaled = x if alpha == 1 else ctx.emit(node, Mul(), x, ctx.number(node, alpha, x))
    return ctx.emit(node, Mul(), x, ctx.emit(node, Sigmoid(), scaled))


def _leaky(ctx: Context, node: Node, x: Value, slope: Value) -> Value:
    """relu(x) + slope * min(x, 0)."""
    below = ctx.emit(node, Mul(), ctx.emit(node, Clip(-math.inf, 0.0), x), slope)
    return ctx.emit(node, Add(), ctx.emit(node, Relu(), x), below)


def _leaky_relu(ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    return _leaky(ctx, node, x, ctx.number(node, node.get_float("alpha", 0.01), x))


def _prelu(ctx: Context, node: Node) -> Converted:
    if broadcast(ctx.type(node, 0).shape, ctx.type(node, 1).shape) != ctx.type(node, 0).shape:
        raise Unsupported("the slope does not broadcast to the input")
    return _leaky(ctx, node, ctx.value(node, 0), ctx.value(node, 1))


def _exponential_unit(ctx: Context, node: Node, alpha: float, inner: float) -> Value:
    """relu(x) + alpha * (exp(min(x, 0) * inner) - 1)."""
    x = ctx.value(node, 0)
    below = ctx.emit(node, Clip(-math.inf, 0.0), x)
    if inner != 1:
        below = ctx.emit(node, Mul(), below, ctx.number(node, inner, x))
    powers = ctx.emit(node, Sub(), ctx.emit(node, Exp(), below), ctx.number(node, 1, x))
    if alpha != 1:
        powers = ctx.emit(node, Mul(), powers, ctx.number(node, alpha, x))
    return ctx.emit(node, Add(), ctx.emit(node, Relu(), x), powers)


def _elu(ctx: Context, node: Node) -> Converted:
    return _exponential_unit(ctx, node, node.get_float("alpha", 1.0), 1.0)


def _celu(ctx: Context, node: Node) -> Converted:
    alpha = node.get_float("alpha", 1.0)
    if alpha <= 0:
        raise Unsupported(f"alpha is {alpha:g}; it must be positive")
    return _exponential_unit(ctx, node, alpha, 1 / alpha)


def _selu(ctx: Context, node: Node) -> Converted:
    unit = _exponential_unit(ctx, node, node.get_float("alpha", 1.67326319217681884765625), 1.0)
    return ctx.emit(node, Mul(), unit, ctx.number(node, node.get_float("gamma", 1.05070102214813232421875), unit))


def _identity(ctx: Context, node: Node) -> Converted:
    return ctx.entry(node, 0)


def _dropout(ctx: Context, node: Node) -> Converted:
    if ctx.has(node, 2) and ctx.known(node, 2, "the training mode").any():
        raise Unsupported("dropout in training mode; export the model for inference")
    return ctx.entry(node, 0)


def _cast(ctx: Context, node: Node) -> Converted:
    dtype = numpy_dtype(node.get_int("to")) if node.op == "Cast" else ctx.type(node, 1).dtype.numpy
    if isinstance(dtype, Opaque):
        raise Unsupported(f"makes {dtype.what}")
    have = ctx.type(node, 0).dtype
    if have.numpy != dtype:
        raise Unsupported(f"casts {have.numpy} to {dtype} at run time")
    return ctx.entry(node, 0)


ELEMENTWISE = {
    "Add": partial(_binary, Add()),
    "Sub": partial(_binary, Sub()),
    "Mul": partial(_binary, Mul()),
    "Div": partial(_binary, Div()),
    "Sum": _sum,
    "Mean": _mean,
    "Neg": _neg,
    "Reciprocal": _reciprocal,
    "Pow": _pow,
    "Relu": partial(_unary, Relu()),
    "Sigmoid": partial(_unary, Sigmoid()),
    "Exp": partial(_unary, Exp()),
    "HardSwish": partial(_unary, HardSwish()),
    "HardSigmoid": _hard_sigmoid,
    "Swish": _swish,
    "Clip": _clip,
    "Min": partial(_bound, "high"),
    "Max": partial(_bound, "low"),
    "LeakyRelu": _leaky_relu,
    "PRelu": _prelu,
    "Elu": _elu,
    "Celu": _celu,
    "Selu": _selu,
    "Identity": _identity,
    "Dropout": _dropout,
    "Cast": _cast,
    "CastLike": _cast,
}
