"""Reductions over axes, and softmax."""

from __future__ import annotations

import math
from functools import partial

from edgec.frontend.onnx.arguments import normal_axes, normal_axis
from edgec.frontend.onnx.context import Context, Converted
from edgec.frontend.onnx.model import Node
from edgec.graph.ir import Value
from edgec.graph.ops.exp import Exp
from edgec.graph.ops.log import Log
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reduce_max import ReduceMax
from edgec.graph.ops.reduce_mean import ReduceMean
from edgec.graph.ops.reduce_min import ReduceMin
from edgec.graph.ops.reduce_prod import ReduceProd
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.ops.reduction import Reduction
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.softmax import Softmax
from edgec.graph.ops.sub import Sub


def _reduce(kind: type[Reduction], ctx: Context, node: Node) -> Converted:
    return _reduced(kind, ctx, node, ctx.value(node, 0))


def _reduced(kind: type[Reduction], ctx: Context, node: Node, x: Value) -> Value:
    axes = ctx.known_ints(node, 1, "the list of axes") if ctx.has(node, 1) else node.get_ints("axes", ())
    if not axes and node.get_int("noop_with_empty_axes", 0):
        return x
    axes = normal_axes(axes or range(x.type.rank), x.type.rank)
    return ctx.emit(node, kind(axes, bool(node.get_int("keepdims", 1))), x)


def _reduce_sum_square(ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    return _reduced(ReduceSum, ctx, node, ctx.emit(node, Mul(), x, x))


def _softmax(ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    shape = x.type.shape
    if node.opset >= 13:
        return ctx.emit(node, Softmax(normal_axis(node.get_int("axis", -1), x.type.rank)), x)
    # Before opset 13 the axes from `axis` on are one: softmax over all of them.
    axis = normal_axis(node.get_int("axis", 1), x.type.rank)
    if math.prod(shape[axis + 1 :]) == 1:
        return ctx.emit(node, Softmax(axis), x)
    flat = ctx.emit(node, Reshape((math.prod(shape[:axis]), math.prod(shape[axis:]))), x)
    return ctx.emit(node, Reshape(shape), ctx.emit(node, Softmax(1), flat))


def _log_softmax(ctx: Context, node: Node) -> Converted:
    """x - max - log(sum(exp(x - max))): no probability is rounded to 0 before its logarithm."""
    x = ctx.value(node, 0)
    shape = x.type.shape
    axis = normal_axis(node.get_int("axis", -1 if node.opset >= 13 else 1), x.type.rank)
    if node.opset < 13:  # the axes from `axis` on are one
        x, axis = ctx.emit(node, Reshape((math.prod(shape[:axis]), math.prod(shape[axis:]))), x), 1
    shifted = ctx.emit(node, Sub(), x, ctx.emit(node, ReduceMax((axis,), True), x))
    total = ctx.emit(node, ReduceSum((axis,), True), ctx.emit(node, Exp(), shifted))
    y = ctx.emit(node, Sub(), shifted, ctx.emit(node, Log(), total))
    return y if y.type.shape == shape else ctx.emit(node, Reshape(shape), y)


REDUCTIONS = {
    "ReduceSum": partial(_reduce, ReduceSum),
    "ReduceMean": partial(_reduce, ReduceMean),
    "ReduceMax": partial(_reduce, ReduceMax),
    "ReduceMin": partial(_reduce, ReduceMin),
    "ReduceProd": partial(_reduce, ReduceProd),
    "ReduceSumSquare": _reduce_sum_square,
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
}
