"""Resizing of images: linear along each axis, so weighted sums of elements, by one constant matrix an axis.

torch itself gives the matrix, as what it makes of the identity: whatever its rule for coordinates is, it is ours.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from edgec.frontend.grid_sample import grid_sample
from edgec.frontend.torch.call import Call, Unsupported
from edgec.frontend.torch.context import Context, Converted, check_table, to_numpy
from edgec.frontend.torch.ops_movement import expand, reshape
from edgec.frontend.torch.ops_nn import over_width, widen
from edgec.graph.ir import Value
from edgec.graph.ops.avg_pool2d import AvgPool2d
from edgec.graph.ops.reduce_mean import ReduceMean
from edgec.graph.ops.resample import Resample
from edgec.graph.types import DType


def _matrix(call: Call, axis: int, extent: int) -> torch.Tensor:
    """[out, extent]: the weights of the elements along one of the last two axes."""
    check_table(max(extent, call.shape[len(call.shape) - 2 + axis]), extent)
    arguments = dict(call.arguments)
    source = next(iter(arguments))
    # Not [1,extent,extent,1] and the like: torch 2.13 resizes some of those wrongly with antialiasing.
    arguments[source] = torch.eye(extent).reshape(1, 1, extent, extent)
    for name, neutral in (("output_size", extent), ("scale_factors", 1.0)):
        if isinstance(arguments.get(name), list):
            arguments[name] = [value if at == axis else neutral for at, value in enumerate(arguments[name])]
    with torch.no_grad():
        made = call.target(*arguments.values())
    made = made.reshape(made.shape[2:])
    return made if axis == 0 else made.t()


def _resampled(source: str, ctx: Context, call: Call) -> Converted:
    y = ctx.value(call, source)
    rank = y.type.rank
    if rank not in (3, 4) or not y.type.dtype.is_float:
        raise Unsupported(f"resizes {y.type}")
    for axis in (0, 1):
        extent = y.type.shape[rank - 2 + axis]
        matrix = to_numpy(_matrix(call, axis, extent))
        if matrix.shape[0] == extent and (matrix == np.eye(extent)).all():
            continue
        y = _weighted(ctx, call, y, rank - 2 + axis, matrix)
    return y


def _weighted(ctx: Context, call: Call, x: Value, axis: int, matrix: np.ndarray) -> Value:
    """Sums of the elements along an axis; matrix[out, extent] holds the weights."""
    indices, weights = _taps(matrix)
    tables = ctx.constant(call, indices, DType.I32), ctx.constant(call, weights, x.type.dtype)
    return ctx.emit(call, Resample(axis), x, *tables)


def _taps(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[out, taps]: where the weights of each row stand that are not 0, and the weights; rows with fewer end in 0."""
    taps = max(int((matrix != 0).sum(1).max(initial=1)), 1)
    order = np.argsort(matrix == 0, axis=1, kind="stable")[:, :taps]
    return order, np.take_along_axis(matrix, order, 1)


def _nearest(ctx: Context, call: Call) -> Converted:
    """By whole factors: each element stretched. Else as any other."""
    x = ctx.value(call, "input")
    if x.type.rank != 4 or any(n % m for n, m in zip(call.shape[2:], x.type.shape[2:], strict=True)):
        return _resampled("input", ctx, call)
    rows, columns = (n // m for n, m in zip(call.shape[2:], x.type.shape[2:], strict=True))
    return _stretched(ctx, call, x, rows, columns)


def _stretched(ctx: Context, call: Call, x: Value, rows: int, columns: int) -> Value:
    n, c, h, w = x.type.shape
    y = reshape(ctx, call, x, (n, c, h, 1, w, 1))
    return reshape(ctx, call, expand(ctx, call, y, (n, c, h, rows, w, columns)), call.shape)


def _adaptive_average_pool(axes: int, ctx: Context, call: Call) -> Converted:
    x, out = widen(ctx, call, ctx.value(call, "self"), axes), over_width(call.shape[-axes:], 1)
    size = x.type.shape[2:]
    if axes == 2 and out == (1, 1):
        return reshape(ctx, call, ctx.emit(call, ReduceMean((2, 3), True), x), call.shape)
    if all(extent % parts == 0 for extent, parts in zip(size, out, strict=True)):
        kernel = (size[0] // out[0], size[1] // out[1])
        return reshape(ctx, call, ctx.emit(call, AvgPool2d(kernel, kernel), x), call.shape)
    if axes == 2:
        return _resampled("self", ctx, call)
    check_table(size[1], out[1])
    rows = torch.nn.functional.adaptive_avg_pool1d(torch.eye(size[1])[None], out[1])[0]
    return _weighted(ctx, call, ctx.value(call, "self"), ctx.type(call, "self").rank - 1, to_numpy(rows.t()))


def _grid_sample(ctx: Context, call: Call) -> Converted:
    x, grid = ctx.value(call, "input"), ctx.value(call, "grid")
    mode = ("linear", "nearest", "cubic")[ctx.integer(call, "interpolation_mode")]
    padding = ("zeros", "border", "reflection")[ctx.integer(call, "padding_mode")]
    return grid_sample(ctx.writer(call), x, grid, mode, padding, ctx.flag(call, "align_corners"))


RESAMPLING = {
    "aten.upsample_nearest2d.vec": _nearest,
    "aten.upsample_bilinear2d.vec": partial(_resampled, "input"),
    "aten.upsample_bicubic2d.vec": partial(_resampled, "input"),
    "aten._upsample_nearest_exact2d.vec": partial(_resampled, "input"),
    "aten._upsample_bilinear2d_aa.vec": partial(_resampled, "input"),
    "aten._upsample_bicubic2d_aa.vec": partial(_resampled, "input"),
    "aten.grid_sampler_2d.default": _grid_sample,
    "aten.grid_sampler_3d.default": _grid_sample,
    "aten.adaptive_avg_pool1d.default": partial(_adaptive_average_pool, 1),
    "aten.adaptive_avg_pool2d.default": partial(_adaptive_average_pool, 2),
    "aten._adaptive_avg_pool2d.default": partial(_adaptive_average_pool, 2),
}
