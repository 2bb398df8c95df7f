"""Convolution over three axes, and its adjoint, as a sum of those over two."""

from __future__ import annotations

from edgec.frontend.writer import Writer
from edgec.graph.ir import Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.pad import Pad
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.slice import Slice
from edgec.graph.ops.transpose import Transpose

Triple = tuple[int, int, int]


def conv3d(
    writer: Writer, x: Value, w: Value, strides: Triple, low: Triple, high: Triple, dilations: Triple, groups: int
) -> Value:
    """x[N,C,D,H,W], w[O,C/g,kd,kh,kw] -> [N*D',O,H',W']: one image for each depth, as `stacked` puts them together.

    A sum over the taps in depth, each of which is a convolution of all slices as images of one batch. low, high: the
    padding before and behind.
    """
    op = Conv2d(strides[1:], (*low[1:], *high[1:]), dilations[1:], groups)
    n, channels, depth, height, width = x.type.shape
    taps = w.type.shape[2]
    count = (depth + low[0] + high[0] - dilations[0] * (taps - 1) - 1) // strides[0] + 1
    slices = writer.emit(Transpose((0, 2, 1, 3, 4)), x)
    if low[0] or high[0]:
        slices = writer.emit(Pad((0, low[0], 0, 0, 0), (0, high[0], 0, 0, 0)), slices)
    total = None
    for tap in range(taps):
        first = tap * dilations[0]
        ends = (n, first + (count - 1) * strides[0] + 1, channels, height, width)
        read = writer.emit(Slice((0, first, 0, 0, 0), ends, (1, strides[0], 1, 1, 1)), slices)
        images = writer.emit(Reshape((n * count, channels, height, width)), read)
        plane = writer.emit(Slice.along(2, tap, tap + 1, w.type), w)
        plane = writer.emit(Reshape((*w.type.shape[:2], *w.type.shape[3:])), plane)
        part = writer.emit(op, images, plane)
        total = part if total is None else writer.emit(Add(), total, part)
    assert total is not None  # a kernel has at least one tap
    return total


def stacked(writer: Writer, images: Value, n: int) -> Value:
    """[N*D,C,H,W] as [N,C,D,H,W]."""
    y = writer.emit(Reshape((n, images.type.shape[0] // n, *images.type.shape[1:])), images)
    return writer.emit(Transpose((0, 2, 1, 3, 4)), y)


def conv_transpose3d(
    writer: Writer, x: Value, w: Value, strides: Triple, low: Triple, size: Triple, dilations: Triple, groups: int
) -> Value:
    """x[N,C,D,H,W], w[C,O/g,kd,kh,kw] -> [N*D',O,H',W'] with (D',H',W') = `size`: the adjoint of `conv3d`.

    A sum over the taps in depth, each of which spreads the slices out and is moved to its place. low: what is cut off
    before the result.
    """
    n, channels, depth, height, width = x.type.shape
    kernel, outputs = w.type.shape[2:], w.type.shape[1] * groups
    whole = [
        (extent - 1) * stride + dilation * (taps - 1) + 1
        for extent, stride, dilation, taps in zip(x.type.shape[2:], strides, dilations, kernel, strict=True)
    ]
    high = [max(extent - before - wanted, 0) for extent, before, wanted in zip(whole, low, size, strict=True)]
    op = Conv2dInputGrad(strides[1:], (*low[1:], *high[1:]), dilations[1:], groups, input_size=size[1:])
    images = writer.emit(Transpose((0, 2, 1, 3, 4)), x)
    images = writer.emit(Reshape((n * depth, channels, height, width)), images)
    reach = max(whole[0], low[0] + size[0])  # more than whole where the output is padded
    total = None
    for tap in range(kernel[0]):
        plane = writer.emit(Slice.along(2, tap, tap + 1, w.type), w)
        plane = writer.emit(Reshape((*w.type.shape[:2], *kernel[1:])), plane)
        part = writer.emit(op, images, plane)
        part = writer.emit(Reshape((n, depth, 1, outputs * size[1] * size[2])), part)
        part = writer.emit(Pad((0, 0, 0, 0), (0, 0, strides[0] - 1, 0)), part) if strides[0] > 1 else part
        part = writer.emit(Reshape((n, depth * strides[0], part.type.shape[3])), part)
        first, length = tap * dilations[0], (depth - 1) * strides[0] + 1
        part = writer.emit(Slice.along(1, 0, length, part.type), part)
        part = writer.emit(Pad((0, first, 0), (0, reach - first - length, 0)), part)
        total = part if total is None else writer.emit(Add(), total, part)
    assert total is not None  # a kernel has at least one tap
    total = writer.emit(Slice.along(1, low[0], low[0] + size[0], total.type), total)
    return writer.emit(Reshape((n * size[0], outputs, *size[1:])), total)
