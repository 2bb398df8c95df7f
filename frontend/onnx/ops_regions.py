"""Operators that read between the pixels of a map at places known at run time: `RoiAlign`, `DeformConv`.

Specs: ONNX `RoiAlign`, 22 (Mask R-CNN, arXiv:1703.06870) and `DeformConv`, 22 (arXiv:1811.11168).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import partial, reduce

import numpy as np

from edgec.frontend.grid_sample import Sampler, Tap
from edgec.frontend.onnx.arguments import read_sliding
from edgec.frontend.onnx.context import Context, Converted
from edgec.frontend.onnx.model import Node, Unsupported
from edgec.graph.ir import Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.bit_and import BitAnd
from edgec.graph.ops.gather import Gather
from edgec.graph.ops.less_equal import LessEqual
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.maximum import Maximum
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reduce_max import ReduceMax
from edgec.graph.ops.reduce_mean import ReduceMean
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.slice import Slice
from edgec.graph.ops.sub import Sub
from edgec.graph.ops.transpose import Transpose
from edgec.graph.ops.where import Where
from edgec.graph.types import DType


def _corners(
    sampler: Sampler, pixels: Value, first: Value, width: int, ys: Sequence[Tap], xs: Sequence[Tap]
) -> Iterator[Value]:
    """The pixels[M, C] around every place, weighted: [places..., C] for each pair of taps. `first` is the pixel at
    (0, 0) of the map that a place is on, i32; it and the taps broadcast to the shape of the places.
    """
    for y, x in itertools.product(ys, xs):
        line = sampler(Mul(), sampler.writer.cast(y.position, DType.I32), _number(sampler, width))
        place = sampler(Add(), line, sampler.writer.cast(x.position, DType.I32))
        place = sampler(Add(), first, place)
        weight = sampler(Mul(), y.weight, x.weight)
        weight = sampler(Reshape((*weight.type.shape, 1)), weight)
        weight = sampler.writer.cast(weight, pixels.type.dtype)
        yield sampler(Mul(), sampler(Gather(0), pixels, place), weight)


def _number(sampler: Sampler, number: int) -> Value:
    return sampler.writer.constant(np.array(number, np.int32))


def _roi_align(ctx: Context, node: Node) -> Converted:
    """x[N,C,H,W], regions[R,4] (x1, y1, x2, y2) and the image of each -> [R,C,h,w]."""
    x, regions, images = (ctx.value(node, index) for index in range(3))
    ratio, mode = node.get_int("sampling_ratio", 0), node.get_str("mode", "avg")
    if ratio < 1:
        raise Unsupported("sampling_ratio 0: as many samples as a region is large; export it with a number")
    if x.type.rank != 4 or regions.type.shape[1:] != (4,) or images.type.shape != regions.type.shape[:1]:
        raise Unsupported(f"{regions.type} and {images.type} for {x.type}")
    n, channels, height, width = x.type.shape
    count = regions.type.shape[0]
    rows, columns = node.get_int("output_height", 1), node.get_int("output_width", 1)
    half = node.opset >= 16 and node.get_str("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    if min(rows, columns) < 1 or mode not in ("avg", "max"):
        raise Unsupported(f"{rows}x{columns} results in mode `{mode}`")
    sampler = Sampler(ctx.writer(node), "border", False)
    regions = sampler.plus(
        sampler.times(sampler.writer.cast(regions, DType.F32), node.get_float("spatial_scale", 1.0)),
        -0.5 if half else 0.0,
    )

    def taps(first: int, results: int, extent: int) -> list[Tap]:
        """Along one axis, of every sample of every region: [R, results * ratio]."""
        low, high = (sampler(Slice.along(1, at, at + 1, regions.type), regions) for at in (first, first + 2))
        size = sampler(Sub(), high, low)
        if not half:
            size = sampler(Maximum(), size, sampler.writer.number(1.0, size))
        steps = (np.arange(results * ratio, dtype=np.float32) + 0.5) / (results * ratio)
        place = sampler(Add(), low, sampler(Mul(), size, sampler.writer.constant(steps.astype(np.float32))))
        near = sampler(LessEqual(), sampler.writer.number(-1.0, place), place)
        near = sampler(BitAnd(), near, sampler(LessEqual(), place, sampler.writer.number(extent, place)))
        zero = sampler.writer.number(0.0, place)
        return [Tap(tap.position, sampler(Where(), near, tap.weight, zero)) for tap in sampler.linear(place, extent)]

    def spread(found: list[Tap], shape: tuple[int, ...]) -> list[Tap]:
        return [Tap(sampler(Reshape(shape), tap.position), sampler(Reshape(shape), tap.weight)) for tap in found]

    ys = spread(taps(1, rows, height), (count, rows * ratio, 1))
    xs = spread(taps(0, columns, width), (count, 1, columns * ratio))
    pixels = sampler(Reshape((n * height * width, channels)), sampler(Transpose((0, 2, 3, 1)), x))
    first = sampler(Mul(), sampler.writer.cast(images, DType.I32), _number(sampler, height * width))
    corners = _corners(sampler, pixels, sampler(Reshape((count, 1, 1)), first), width, ys, xs)
    samples = reduce(partial(sampler, Add() if mode == "avg" else Maximum()), corners)
    samples = sampler(Reshape((count, rows, ratio, columns, ratio, channels)), samples)
    y = sampler(ReduceMean((2, 4)) if mode == "avg" else ReduceMax((2, 4)), samples)
    return sampler(Transpose((0, 3, 1, 2)), y)


def _deform_conv(ctx: Context, node: Node) -> Converted:
    """A convolution whose taps are moved by offsets[N, groups * taps * 2, h, w] and scaled by a mask."""
    x, w, offsets = (ctx.value(node, index) for index in range(3))
    if x.type.rank != 4 or w.type.rank != 4:
        raise Unsupported(f"an input of rank {x.type.rank} and a weight of rank {w.type.rank}; 4 is supported")
    n, channels, height, width = x.type.shape
    outputs, depth, *kernel = w.type.shape
    windows = read_sliding(node, (height, width), tuple(kernel))
    groups, sets = node.get_int("group", 1), node.get_int("offset_group", 1)
    taps, size = math.prod(kernel), tuple(window.output for window in windows)
    points = math.prod(size)
    fits = min(groups, sets) > 0 and depth * groups == channels and not channels % sets and not outputs % groups
    if not fits or offsets.type.shape != (n, sets * taps * 2, *size):
        raise Unsupported(f"{w.type} and offsets {offsets.type} for {x.type}")
    sampler = Sampler(ctx.writer(node), "zeros", False)
    moved = sampler(Reshape((n, sets, taps, 2, points)), sampler.writer.cast(offsets, DType.F32))
    regular = np.meshgrid(*(window.taps().ravel() for window in windows), indexing="ij")
    found = []
    for axis, extent in enumerate((height, width)):
        # [y, ky, x, kx] -> [ky, kx, y, x]
        base = regular[axis].reshape(size[0], kernel[0], size[1], kernel[1]).transpose(1, 3, 0, 2)
        own = sampler(Reshape((n, sets, taps, points)), sampler(Slice.along(3, axis, axis + 1, moved.type), moved))
        place = sampler(Add(), own, sampler.writer.constant(base.reshape(taps, points).astype(np.float32)))
        found.append(sampler.linear(place, extent))
    pixels = sampler(Reshape((n, sets, channels // sets, height * width)), x)
    pixels = sampler(Transpose((0, 1, 3, 2)), pixels)
    pixels = sampler(Reshape((n * sets * height * width, channels // sets)), pixels)
    starts = np.arange(n * sets, dtype=np.int32).reshape(n, sets, 1, 1) * (height * width)
    corners = _corners(sampler, pixels, sampler.writer.constant(starts), width, *found)
    read = reduce(partial(sampler, Add()), corners)  # [n, sets, taps, points, channels of a set]
    if ctx.has(node, 4):
        mask = ctx.value(node, 4)
        if mask.type.shape != (n, sets * taps, *size):
            raise Unsupported(f"a mask {mask.type} for offsets {offsets.type}")
        read = sampler(Mul(), read, sampler(Reshape((n, sets, taps, points, 1)), mask))
    read = sampler(Reshape((n, groups, depth * taps, points)), sampler(Transpose((0, 1, 4, 2, 3)), read))
    weight = sampler(Reshape((groups, outputs // groups, depth * taps)), w)
    y = sampler(Reshape((n, outputs, *size)), sampler(MatMul(), weight, read))
    if not ctx.has(node, 3):
        return y
    return sampler(Add(), y, sampler(Reshape((outputs, 1, 1)), ctx.value(node, 3)))


REGIONS = {"RoiAlign": _roi_align, "DeformConv": _deform_conv}
