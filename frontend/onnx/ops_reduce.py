"""Pools, reductions over axes, and softmax."""

from __future__ import annotations

import math
from functools import partial

from edgec.frontend.onnx.arguments import normal_axes, normal_axis, read_windows
from edgec.frontend.onnx.context import Context, Converted
from edgec.frontend.onnx.model import Node, Unsupported
from edgec.frontend.onnx.ops_nn import narrow, widen
from edgec.graph.ir import Value
from edgec.graph.ops.avg_pool2d import AvgPool2d
from edgec.graph.ops.max_pool2d import MaxPool2d
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.pad import Pad
from edgec.graph.ops.reduce_max import ReduceMax
from edgec.graph.ops.reduce_mean import ReduceMean
from edgec.graph.ops.reduce_min import ReduceMin
from edgec.graph.ops.reduce_prod import ReduceProd
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.ops.reduction import Reduction
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.softmax import Softmax


def _max_pool(ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    windows = read_windows(node, x.type.shape[2:], node.get_ints("kernel_shape"))
    pads = windows.with_ceil() if _ceil(node) else windows.pads
    op = MaxPool2d(windows.kernel, windows.strides, pads, windows.dilations)
    return narrow(ctx, node, ctx.emit(node, op, widen(ctx, node, x)), x.type.rank)


def _average_pool(ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    windows = read_windows(node, x.type.shape[2:], node.get_ints("kernel_shape"))
    if windows.dilations != (1, 1):
        raise Unsupported("an average pool with dilations")
    wide = widen(ctx, node, x)
    pads = windows.with_ceil() if _ceil(node) else windows.pads
    counts_pads = bool(node.get_int("count_include_pad", 0))
    if counts_pads and pads != windows.pads:
        # The given padding counts, the rest of a window that ceil_mode lets hang over does not.
        top, left, bottom, right = windows.pads
        wide = ctx.emit(node, Pad((0, 0, top, left), (0, 0, bottom, right)), wide)
        pads = (0, 0, pads[2] - bottom, pads[3] - right)
        counts_pads = False
    op = AvgPool2d(windows.kernel, windows.strides, pads, counts_pads)
    return narrow(ctx, node, ctx.emit(node, op, wide), x.type.rank)


def _ceil(node: Node) -> bool:
    return bool(node.get_int("ceil_mode", 0)) and not node.get_str("auto_pad", "NOTSET").startswith("SAME")


def _global_pool(kind: type[Reduction], ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    if x.type.rank < 3:
        raise Unsupported(f"an input of rank {x.type.rank} has no spatial axes")
    return ctx.emit(node, kind(tuple(range(2, x.type.rank)), True), x)


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


REDUCTIONS = {
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": partial(_global_pool, ReduceMean),
    "GlobalMaxPool": partial(_global_pool, ReduceMax),
    "ReduceSum": partial(_reduce, ReduceSum),
    "ReduceMean": partial(_reduce, ReduceMean),
    "ReduceMax": partial(_reduce, ReduceMax),
    "ReduceMin": partial(_reduce, ReduceMin),
    "ReduceProd": partial(_reduce, ReduceProd),
    "ReduceSumSquare": _reduce_sum_square,
    "Softmax": _softmax,
}
