"""Reductions over axes, and softmax."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import ml_dtypes
import numpy as np

from edgec.frontend.onnx.arguments import normal_axes, normal_axis
from edgec.frontend.onnx.context import Context, Converted
from edgec.frontend.onnx.model import Node
from edgec.frontend.onnx.ops_logic import cast
from edgec.graph.ir import Value
from edgec.graph.ops.abs import Abs
from edgec.graph.ops.add import Add
from edgec.graph.ops.clip import Clip
from edgec.graph.ops.exp import Exp
from edgec.graph.ops.log import Log
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reduce_max import ReduceMax
from edgec.graph.ops.reduce_mean import ReduceMean
from edgec.graph.ops.reduce_min import ReduceMin
from edgec.graph.ops.reduce_prod import ReduceProd
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.ops.reduction import Reduction
from edgec.graph.ops.relu import Relu
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.softmax import Softmax
from edgec.graph.ops.sqrt import Sqrt
from edgec.graph.ops.sub import Sub
from edgec.graph.types import DType


def _reduce(kind: type[Reduction], ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    if x.type.dtype is not DType.BOOL:
        return _reduced(kind, ctx, node, x)
    return cast(ctx, node, _reduced(kind, ctx, node, cast(ctx, node, x, DType.U8)), DType.BOOL)


def _reduced(kind: type[Reduction], ctx: Context, node: Node, x: Value) -> Value:
    axes = ctx.known_ints(node, 1, "the list of axes") if ctx.has(node, 1) else node.get_ints("axes", ())
    if not axes and node.get_int("noop_with_empty_axes", 0):
        return x
    axes = normal_axes(axes or range(x.type.rank), x.type.rank)
    op = kind(axes, bool(node.get_int("keepdims", 1)))
    if kind in (ReduceMax, ReduceMin) and 0 in (x.type.shape[axis] for axis in axes):
        (made,) = ReduceSum(op.axes, op.keepdims).infer(x.type)
        return ctx.constant(node, np.full(made.shape, beyond_all(x, lowest=kind is ReduceMax), made.dtype.numpy))
    return ctx.emit(node, op, x)


def beyond_all(x: Value, *, lowest: bool) -> float:
    """What the maximum (or the minimum) of no elements is."""
    if x.type.dtype.is_float:
        return -math.inf if lowest else math.inf
    info = np.iinfo(x.type.dtype.numpy)
    return info.min if lowest else info.max


def _reduce_sum_square(ctx: Context, node: Node) -> Value:
    x = ctx.value(node, 0)
    return _reduced(ReduceSum, ctx, node, ctx.emit(node, Mul(), x, x))


def _reduce_log_sum(ctx: Context, node: Node) -> Converted:
    return ctx.emit(node, Log(), _reduced(ReduceSum, ctx, node, ctx.value(node, 0)))


def _reduce_log_sum_exp(ctx: Context, node: Node) -> Converted:
    """log(sum(exp(x - max))) + max: nothing overflows. An infinite maximum is not subtracted from itself."""
    x = ctx.value(node, 0)
    kept = dataclasses.replace(node, attributes={**node.attributes, "keepdims": 1})
    largest = float(ml_dtypes.finfo(x.type.dtype.numpy).max) if x.type.dtype.is_float else math.inf
    top = ctx.emit(node, Clip(-largest, largest), _reduced(ReduceMax, ctx, kept, x))
    total = _reduced(ReduceSum, ctx, node, ctx.emit(node, Exp(), ctx.emit(node, Sub(), x, top)))
    top = ctx.emit(node, Reshape(total.type.shape), top)
    return ctx.emit(node, Add(), ctx.emit(node, Log(), total), top)


def _reduce_l1(ctx: Context, node: Node) -> Converted:
    return _reduced(ReduceSum, ctx, node, ctx.emit(node, Abs(), ctx.value(node, 0)))


def _reduce_l2(ctx: Context, node: Node) -> Converted:
    # The relu changes nothing but the gradient where all is 0, which is 0 and not infinite, as torch's of a norm.
    return ctx.emit(node, Sqrt(), ctx.emit(node, Relu(), _reduce_sum_square(ctx, node)))


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
    "ReduceLogSum": _reduce_log_sum,
    "ReduceLogSumExp": _reduce_log_sum_exp,
    "ReduceL1": _reduce_l1,
    "ReduceL2": _reduce_l2,
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
}
