"""Windows that slide over an axis or an image, as elements of their own, and images put together from such."""

from __future__ import annotations

import math

import numpy as np

from edgec.frontend.torch.call import Call
from edgec.frontend.torch.context import Context, Converted
from edgec.frontend.torch.ops_movement import cut, reshape, transpose
from edgec.graph.ir import Value
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.gather import Gather
from edgec.graph.ops.pad import Pad
from edgec.graph.types import DType


def _windows(ctx: Context, call: Call, x: Value, axis: int, size: int, step: int, dilation: int = 1) -> Value:
    """`x` with the axis in two: windows, and their elements."""
    shape = x.type.shape
    count = (shape[axis] - dilation * (size - 1) - 1) // step + 1
    if step == size and dilation == 1:  # they tile the axis
        parts = cut(ctx, call, x, axis, range(count * size))
        return reshape(ctx, call, parts, (*shape[:axis], count, size, *shape[axis + 1 :]))
    places = np.arange(count)[:, None] * step + np.arange(size) * dilation
    return ctx.emit(call, Gather(axis), x, ctx.constant(call, places, DType.I32))


def _unfold(ctx: Context, call: Call) -> Converted:
    """x.unfold(dimension, size, step): the elements of a window become the last axis."""
    x = ctx.value(call, "self")
    if not x.type.rank:
        return reshape(ctx, call, x, call.shape)
    axis = ctx.axis(call, "dimension", x.type.rank)
    y = _windows(ctx, call, x, axis, ctx.integer(call, "size"), ctx.integer(call, "step"))
    order = [at for at in range(y.type.rank) if at != axis + 1]
    return transpose(ctx, call, y, (*order, axis + 1))


def _im2col(ctx: Context, call: Call) -> Converted:
    """F.unfold: x[N,C,H,W] -> [N,C*kh*kw,windows]."""
    x = ctx.value(call, "self")
    kernel, dilation, padding, stride = (
        ctx.pair(call, name) for name in ("kernel_size", "dilation", "padding", "stride")
    )
    x = reshape(ctx, call, x, (1, *x.type.shape)) if x.type.rank == 3 else x
    if any(padding):
        x = ctx.emit(call, Pad((0, 0, *padding), (0, 0, *padding)), x)
    y = _windows(ctx, call, x, 3, kernel[1], stride[1], dilation[1])
    y = _windows(ctx, call, y, 2, kernel[0], stride[0], dilation[0])
    return reshape(ctx, call, transpose(ctx, call, y, (0, 1, 3, 5, 2, 4)), call.shape)


def _col2im(ctx: Context, call: Call) -> Converted:
    """F.fold, where windows overlap their sum: a transposed convolution that moves each element to its place."""
    x = ctx.value(call, "self")
    kernel, dilation, padding, stride, size = (
        ctx.pair(call, name) for name in ("kernel_size", "dilation", "padding", "stride", "output_size")
    )
    count = math.prod(kernel)
    channels = x.type.shape[-2] // count
    windows = tuple(
        (extent + 2 * pad - d * (k - 1) - 1) // step + 1
        for extent, pad, d, k, step in zip(size, padding, dilation, kernel, stride, strict=True)
    )
    images = x.type.size // (x.type.shape[-2] * x.type.shape[-1])
    rows = reshape(ctx, call, x, (images, channels * count, *windows))
    one_each = np.tile(np.eye(count).reshape(count, 1, *kernel), (channels, 1, 1, 1))
    op = Conv2dInputGrad(stride, (*padding, *padding), dilation, channels, input_size=size)
    return reshape(ctx, call, ctx.emit(call, op, rows, ctx.constant(call, one_each, x.type.dtype)), call.shape)


WINDOWS = {
    "aten.unfold.default": _unfold,
    "aten.im2col.default": _im2col,
    "aten.col2im.default": _col2im,
}
