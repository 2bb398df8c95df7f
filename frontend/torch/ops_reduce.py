"""Pools, reductions over axes, and softmax."""

from __future__ import annotations

from functools import partial

import numpy as np

from edgec.frontend.torch.call import Call, Unsupported
from edgec.frontend.torch.context import Context, Converted
from edgec.frontend.torch.ops_elementwise import operand
from edgec.frontend.torch.ops_movement import reshape
from edgec.frontend.torch.ops_nn import over_width, widen
from edgec.graph.ir import Value
from edgec.graph.ops.avg_pool2d import AvgPool2d
from edgec.graph.ops.cum_prod import CumProd
from edgec.graph.ops.cum_sum import CumSum
from edgec.graph.ops.cumulative import Cumulative
from edgec.graph.ops.gather import Gather
from edgec.graph.ops.max_pool2d import MaxPool2d
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.pad import Pad
from edgec.graph.ops.reduce_max import ReduceMax
from edgec.graph.ops.reduce_mean import ReduceMean
from edgec.graph.ops.reduce_min import ReduceMin
from edgec.graph.ops.reduce_prod import ReduceProd
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.ops.reduction import Reduction
from edgec.graph.ops.softmax import Softmax
from edgec.graph.ops.sub import Sub
from edgec.graph.types import DType

Pads = tuple[int, int, int, int]


def _windows(
    ctx: Context, call: Call, axes: int
) -> tuple[Value, tuple[int, int], tuple[int, int], tuple[int, int], Pads, Pads]:
    """Input as [N,C,H,W], kernel, strides, dilations, pads, and these grown for windows that hang over the end."""
    x = widen(ctx, call, ctx.value(call, "self"), axes)
    kernel = over_width(ctx.pair(call, "kernel_size", axes), 1)
    given = "stride" if call.arguments.get("stride") else "kernel_size"
    strides = over_width(ctx.pair(call, given, axes), 1)
    dilations = over_width(ctx.pair(call, "dilation", axes), 1) if "dilation" in call.arguments else (1, 1)
    top, left = over_width(ctx.pair(call, "padding", axes), 0)
    pads = grown = (top, left, top, left)
    if ctx.flag(call, "ceil_mode"):
        extra = []
        for axis, out in enumerate(over_width(call.shape[-axes:], 1)):
            reach = strides[axis] * (out - 1) + dilations[axis] * (kernel[axis] - 1) + 1
            extra.append(max(reach - x.type.shape[2 + axis] - 2 * pads[axis], 0))
        grown = (top, left, top + extra[0], left + extra[1])
    return x, kernel, strides, dilations, pads, grown


def _max_pool(axes: int, ctx: Context, call: Call) -> Converted:
    x, kernel, strides, dilations, _, pads = _windows(ctx, call, axes)
    y = reshape(ctx, call, ctx.emit(call, MaxPool2d(kernel, strides, pads, dilations), x), call.shape)
    return (y, None) if len(call.results) > 1 else y


def _average_pool(axes: int, ctx: Context, call: Call) -> Converted:
    x, kernel, strides, _, pads, grown = _windows(ctx, call, axes)
    counts_pads = ctx.flag(call, "count_include_pad")
    if counts_pads and grown != pads:
        # The given padding counts, the rest of a window that hangs over does not.
        top, left, bottom, right = pads
        x = ctx.emit(call, Pad((0, 0, top, left), (0, 0, bottom, right)), x)
        grown, counts_pads = (0, 0, grown[2] - bottom, grown[3] - right), False
    divisor = call.arguments.get("divisor_override")
    if divisor and grown != pads:
        raise Unsupported("a divisor of its own for windows that hang over the end")
    y = ctx.emit(call, AvgPool2d(kernel, strides, grown, counts_pads or bool(divisor)), x)
    if divisor:
        y = ctx.emit(call, Mul(), y, ctx.scalar(call, kernel[0] * kernel[1] / divisor, y))
    return reshape(ctx, call, y, call.shape)


def _volume_pool(average: bool, ctx: Context, call: Call) -> Converted:
    """Over three axes: over the last two, then over the first, whose slices are then rows."""
    if ctx.flag(call, "ceil_mode") or call.arguments.get("divisor_override"):
        raise Unsupported("windows over three axes that hang over the end, or with a divisor of their own")
    x = ctx.value(call, "self")
    n, c, depth, height, width = x.type.shape if x.type.rank == 5 else (1, *x.type.shape)
    kernel, padding = ctx.pair(call, "kernel_size", 3), ctx.pair(call, "padding", 3)
    strides = ctx.pair(call, "stride", 3) if call.arguments.get("stride") else kernel
    dilations = ctx.pair(call, "dilation", 3) if "dilation" in call.arguments else (1, 1, 1)
    counts_pads = ctx.flag(call, "count_include_pad")

    def pool(x: Value, axes: slice) -> Value:
        window, steps, spread, low = (
            over_width((*values[axes], *(neutral,) * (len(values[axes]) < 2)), neutral)
            for values, neutral in ((kernel, 1), (strides, 1), (dilations, 1), (padding, 0))
        )
        pads = (*low, *low)
        op = AvgPool2d(window, steps, pads, counts_pads) if average else MaxPool2d(window, steps, pads, spread)
        return ctx.emit(call, op, x)

    y = pool(reshape(ctx, call, x, (n, c * depth, height, width)), slice(1, 3))
    y = pool(reshape(ctx, call, y, (n, c, depth, y.type.shape[2] * y.type.shape[3])), slice(0, 1))
    y = reshape(ctx, call, y, call.shape)
    return y if average else (y, None)


def _adaptive_max_pool(axes: int, ctx: Context, call: Call) -> Converted:
    x, out = widen(ctx, call, ctx.value(call, "self"), axes), over_width(call.shape[-axes:], 1)
    size = x.type.shape[2:]
    if not any(extent % parts for extent, parts in zip(size, out, strict=True)):
        kernel = (size[0] // out[0], size[1] // out[1])
        return reshape(ctx, call, ctx.emit(call, MaxPool2d(kernel, kernel), x), call.shape), None
    for axis, (extent, parts) in enumerate(zip(size, out, strict=True), 2):
        x = _uneven_maxima(ctx, call, x, axis, extent, parts)
    return reshape(ctx, call, x, call.shape), None


def _uneven_maxima(ctx: Context, call: Call, x: Value, axis: int, extent: int, parts: int) -> Value:
    """Maxima over `parts` windows that cover the axis, as torch places them; shorter ones read their last twice."""
    starts = np.arange(parts) * extent // parts
    ends = -(-(np.arange(parts) + 1) * extent // parts)
    places = np.minimum(starts[:, None] + np.arange((ends - starts).max()), ends[:, None] - 1)
    windows = ctx.emit(call, Gather(axis), x, ctx.constant(call, places, DType.I32))
    return ctx.emit(call, ReduceMax((axis + 1,)), windows)


def _reduced(kind: type[Reduction], ctx: Context, call: Call, x: Value, axes: tuple[int, ...]) -> Value:
    if not x.type.rank:
        return x
    return ctx.emit(call, kind(axes, ctx.flag(call, "keepdim")), x)


def _reduce(kind: type[Reduction], ctx: Context, call: Call) -> Converted:
    x = operand(ctx, call, "self")
    return _reduced(kind, ctx, call, x, ctx.axes(call, "dim", x.type.rank))


def variance(ctx: Context, call: Call, x: Value, axes: tuple[int, ...], divisor: float) -> Value:
    """sum((x - mean)^2) / divisor over `axes`, which stay as extents of 1."""
    centred = ctx.emit(call, Sub(), x, ctx.emit(call, ReduceMean(axes, True), x))
    total = ctx.emit(call, ReduceSum(axes, True), ctx.emit(call, Mul(), centred, centred))
    return ctx.emit(call, Mul(), total, ctx.scalar(call, 1 / divisor, x))


def _variance(ctx: Context, call: Call) -> Converted:
    x = ctx.value(call, "self")
    axes = ctx.axes(call, "dim", x.type.rank)
    count = int(np.prod([x.type.shape[axis] for axis in axes]))
    correction = ctx.number(call, "correction") if ctx.has(call, "correction") else 1
    if count <= correction:
        raise Unsupported(f"a variance of {count} elements")
    return reshape(ctx, call, variance(ctx, call, x, axes, count - correction), call.shape)


def _variance_and_mean(ctx: Context, call: Call) -> Converted:
    x = ctx.value(call, "self")
    axes = ctx.axes(call, "dim", x.type.rank)
    return _variance(ctx, call), ctx.emit(call, ReduceMean(axes, ctx.flag(call, "keepdim")), x)


def _softmax(ctx: Context, call: Call) -> Converted:
    x = operand(ctx, call, "self")
    if not x.type.rank:
        raise Unsupported("of a scalar")
    return ctx.emit(call, Softmax(ctx.axis(call, "dim", x.type.rank)), x)


def _cumulated(kind: type[Cumulative], ctx: Context, call: Call) -> Converted:
    x = operand(ctx, call, "self")
    return ctx.emit(call, kind(ctx.axis(call, "dim", x.type.rank)), x)


REDUCTIONS = {
    "aten.max_pool1d.default": partial(_max_pool, 1),
    "aten.max_pool2d.default": partial(_max_pool, 2),
    "aten.max_pool2d_with_indices.default": partial(_max_pool, 2),
    "aten.max_pool3d_with_indices.default": partial(_volume_pool, False),
    "aten.avg_pool3d.default": partial(_volume_pool, True),
    "aten.avg_pool1d.default": partial(_average_pool, 1),
    "aten.avg_pool2d.default": partial(_average_pool, 2),
    "aten.adaptive_max_pool1d.default": partial(_adaptive_max_pool, 1),
    "aten.adaptive_max_pool2d.default": partial(_adaptive_max_pool, 2),
    "aten.mean.default": partial(_reduce, ReduceMean),
    "aten.mean.dim": partial(_reduce, ReduceMean),
    "aten.sum.default": partial(_reduce, ReduceSum),
    "aten.sum.dim_IntList": partial(_reduce, ReduceSum),
    "aten.amax.default": partial(_reduce, ReduceMax),
    "aten.amin.default": partial(_reduce, ReduceMin),
    "aten.max.default": partial(_reduce, ReduceMax),
    "aten.min.default": partial(_reduce, ReduceMin),
    "aten.prod.default": partial(_reduce, ReduceProd),
    "aten.prod.dim_int": partial(_reduce, ReduceProd),
    "aten.var.correction": _variance,
    "aten.var_mean.correction": _variance_and_mean,
    "aten.softmax.int": _softmax,
    "aten._softmax.default": _softmax,
    "aten.cumsum.default": partial(_cumulated, CumSum),
    "aten.cumprod.default": partial(_cumulated, CumProd),
}
