"""Elementwise operators: arithmetic with broadcasting, activations, and what is neutral at inference."""

from __future__ import annotations

import math
from functools import partial, reduce

import numpy as np

from edgec.frontend.onnx.arguments import broadcast
from edgec.frontend.onnx.context import Context, Converted
from edgec.frontend.onnx.model import Node, Unsupported
from edgec.graph.ir import Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.base import Op
from edgec.graph.ops.broadcast_to import BroadcastTo
from edgec.graph.ops.clip import Clip
from edgec.graph.ops.div import Div
from edgec.graph.ops.dropout import Dropout
from edgec.graph.ops.exp import Exp
from edgec.graph.ops.hard_sigmoid import HardSigmoid
from edgec.graph.ops.hard_swish import HardSwish
from edgec.graph.ops.maximum import Maximum
from edgec.graph.ops.minimum import Minimum
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.relu import Relu
from edgec.graph.ops.sigmoid import Sigmoid
from edgec.graph.ops.sub import Sub


def operands(ctx: Context, node: Node, count: int | None = None) -> list[Value]:
    """All inputs as tensors that broadcast to one shape; `count` of them, where it is given."""
    if not node.inputs:
        raise Unsupported("has no inputs")
    if count is not None and len(node.inputs) != count:
        raise Unsupported(f"takes {count} inputs, not {len(node.inputs)}")
    shape = broadcast(*(ctx.type(node, index).shape for index in range(len(node.inputs))))
    return [ctx.factor(node, index, shape) for index in range(len(node.inputs))]


def _binary(op: Op, ctx: Context, node: Node) -> Converted:
    a, b = operands(ctx, node, 2)
    return ctx.emit(node, op, a, b)


def _unary(op: Op, ctx: Context, node: Node) -> Converted:
    return ctx.emit(node, op, ctx.value(node, 0))


def _sum(ctx: Context, node: Node) -> Converted:
    first, *rest = operands(ctx, node)
    return reduce(partial(ctx.emit, node, Add()), rest, first)


def _mean(ctx: Context, node: Node) -> Converted:
    total = _sum(ctx, node)
    return ctx.emit(node, Mul(), total, ctx.number(node, 1 / len(node.inputs), total))


def _reciprocal(ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    return ctx.emit(node, Div(), ctx.number(node, 1, x), x)


def _clip(ctx: Context, node: Node) -> Converted:
    if node.opset < 11:
        return _clipped(ctx, node, node.get_float("min", -math.inf), node.get_float("max", math.inf))
    bounds = [ctx.entry(node, index) if ctx.has(node, index) else None for index in (1, 2)]
    if not any(isinstance(bound, Value) for bound in bounds):
        low = ctx.known_scalar(node, 1, "the lower bound") if bounds[0] else -math.inf
        high = ctx.known_scalar(node, 2, "the upper bound") if bounds[1] else math.inf
        return _clipped(ctx, node, low, high)
    y = ctx.value(node, 0)
    y = ctx.emit(node, Maximum(), y, ctx.value(node, 1)) if bounds[0] else y
    return ctx.emit(node, Minimum(), y, ctx.value(node, 2)) if bounds[1] else y


def _clipped(ctx: Context, node: Node, low: float, high: float) -> Converted:
    if (low, high) == (-math.inf, math.inf):
        return ctx.entry(node, 0)
    return ctx.emit(node, Clip(min(low, high), high), ctx.value(node, 0))  # ONNX: the upper bound wins


def _relu(ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    return ctx.emit(node, Relu() if x.type.dtype.is_float else Clip(0, math.inf), x)


def _hard_sigmoid(ctx: Context, node: Node) -> Converted:
    op = HardSigmoid(alpha=node.get_float("alpha", 0.2), beta=node.get_float("beta", 0.5))
    return ctx.emit(node, op, ctx.value(node, 0))


def _swish(ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    alpha = node.get_float("alpha", 1.0)
    scaled = x if alpha == 1 else ctx.emit(node, Mul(), x, ctx.number(node, alpha, x))
    return ctx.emit(node, Mul(), x, ctx.emit(node, Sigmoid(), scaled))


def leaky(ctx: Context, node: Node, x: Value, slope: Value) -> Value:
    """relu(x) + slope * min(x, 0)."""
    below = ctx.emit(node, Mul(), ctx.emit(node, Clip(-math.inf, 0.0), x), slope)
    return ctx.emit(node, Add(), ctx.emit(node, Relu(), x), below)


def _leaky_relu(ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    return leaky(ctx, node, x, ctx.number(node, node.get_float("alpha", 0.01), x))


def _prelu(ctx: Context, node: Node) -> Converted:
    if broadcast(ctx.type(node, 0).shape, ctx.type(node, 1).shape) != ctx.type(node, 0).shape:
        raise Unsupported("the slope does not broadcast to the input")
    return leaky(ctx, node, ctx.value(node, 0), ctx.value(node, 1))


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
    return ctx.any_entry(node, 0)


def _dropout(ctx: Context, node: Node) -> Converted:
    """Nothing in inference, also where the model says that it is in training mode; in training what `Train` says."""
    entry, rate = ctx.entry(node, 0), node.get_float("ratio", 0.5)
    if ctx.has(node, 1):
        ratio = ctx.entry(node, 1)
        rate = 0.0 if isinstance(ratio, Value) else float(ratio.array)  # one of the run is for inference alone
    if isinstance(entry, Value) and rate:
        entry = ctx.emit(node, Dropout(rate), entry)
    if not any(node.outputs[1:]):
        return entry
    kept = ctx.constant(node, np.array(True))
    return entry, ctx.emit(node, BroadcastTo(ctx.type(node, 0).shape), kept)


ELEMENTWISE = {
    "Add": partial(_binary, Add()),
    "Sub": partial(_binary, Sub()),
    "Mul": partial(_binary, Mul()),
    "Div": partial(_binary, Div()),
    "Sum": _sum,
    "Mean": _mean,
    "Reciprocal": _reciprocal,
    "Relu": _relu,
    "Sigmoid": partial(_unary, Sigmoid()),
    "Exp": partial(_unary, Exp()),
    "HardSwish": partial(_unary, HardSwish()),
    "HardSigmoid": _hard_sigmoid,
    "Swish": _swish,
    "Clip": _clip,
    "LeakyRelu": _leaky_relu,
    "PRelu": _prelu,
    "Elu": _elu,
    "Celu": _celu,
    "Selu": _selu,
    "Identity": _identity,
    "Dropout": _dropout,
}
