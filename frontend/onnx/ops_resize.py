"""`Resize` and `Upsample`: tables of positions and weights for each axis, made at compile time.

Interpolation is separable, so an axis at a time is exact, and cheaper than all at once. Formulas: ONNX `Resize`, 19.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgec.frontend.grid_sample import Sampler
from edgec.frontend.onnx.arguments import normal_axis
from edgec.frontend.onnx.context import Context, Converted, Known
from edgec.frontend.onnx.model import Node, Unsupported
from edgec.frontend.onnx.ops_indexing import pick
from edgec.graph.ir import Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.bit_and import BitAnd
from edgec.graph.ops.ceil import Ceil
from edgec.graph.ops.clip import Clip
from edgec.graph.ops.floor import Floor
from edgec.graph.ops.gather import Gather
from edgec.graph.ops.less_equal import LessEqual
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.resample import Resample
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.slice import Slice
from edgec.graph.ops.sub import Sub
from edgec.graph.ops.where import Where
from edgec.graph.types import DType

MAX_EXTENT = 1 << 20  # of a resized axis: tables of positions are made for it at compile time


@dataclass(frozen=True)
class _Axis:
    """One axis that changes: `scale` is that of the coordinates; `region` is what `tf_crop_and_resize` cuts out."""

    axis: int
    extent: int
    target: int
    scale: float
    region: tuple[float, float]


def _resize(ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    axes = _axes(ctx, node, x.type.shape)
    mode = node.get_str("mode", "nearest")
    coordinates = node.get_str("coordinate_transformation_mode", "half_pixel" if node.opset >= 11 else "asymmetric")
    if coordinates == "tf_half_pixel_for_nn":
        coordinates = "half_pixel" if mode == "nearest" else coordinates
    region = ctx.entry(node, 1) if coordinates == "tf_crop_and_resize" and ctx.has(node, 1) else None
    if isinstance(region, Value):
        return _cropped(ctx, node, x, axes, region)
    outside = [np.zeros(item.target, bool) for item in axes]
    for index, item in enumerate(axes):
        places = _places(coordinates, item)
        if coordinates == "tf_crop_and_resize":
            outside[index] = (places < 0) | (places > item.extent - 1)
        if mode == "nearest":
            rounding = node.get_str("nearest_mode", "round_prefer_floor" if node.opset >= 11 else "floor")
            x = pick(ctx, node, x, item.axis, np.clip(_rounded(rounding, places), 0, item.extent - 1))
        elif item.target != item.extent or not np.array_equal(places, np.arange(item.extent)):
            x = _interpolate(ctx, node, x, item, *_tables(node, mode, places, item))
    return _extrapolated(ctx, node, x, axes, outside)


def _upsample(ctx: Context, node: Node) -> Converted:
    """The same with coordinates that start at 0 and nearest ones that are rounded down."""
    x = ctx.value(node, 0)
    if node.opset < 9:
        scales = np.array(node.get_floats("scales"))
    else:
        scales = ctx.known(node, 1, "the list of scales").reshape(-1)
    mode = node.get_str("mode", "nearest")
    if len(scales) != x.type.rank or min(scales, default=1) < 1 or not np.isfinite(scales).all():
        raise Unsupported(f"scales {scales.tolist()} do not fit rank {x.type.rank}")
    for axis, (extent, scale) in enumerate(zip(x.type.shape, scales, strict=True)):
        item = _Axis(axis, extent, _target(extent * float(scale)), float(scale), (0.0, 1.0))
        if item.target == extent:
            continue
        places = np.minimum(_places("asymmetric", item), extent - 1)
        if mode == "nearest":
            x = pick(ctx, node, x, axis, np.floor(places).astype(np.int64))
        else:
            x = _interpolate(ctx, node, x, item, *_tables(node, "linear", places, item))
    return x


def _axes(ctx: Context, node: Node, shape: Sequence[int]) -> list[_Axis]:
    """What the scales or sizes say about each axis."""
    rank = len(shape)
    # Up to opset 10 the only argument is the scales.
    roi_at, scales_at, sizes_at = (1, 2, 3) if node.opset >= 11 else (rank, 1, rank)
    names = [normal_axis(axis, rank) for axis in node.get_ints("axes", tuple(range(rank)))]
    extents = [shape[axis] for axis in names]
    sizes = _optional(ctx, node, sizes_at, "the list of sizes")
    scales = _optional(ctx, node, scales_at, "the list of scales")
    if sizes is None and scales is None:
        raise Unsupported("neither scales nor sizes are given")
    count = len(sizes if sizes is not None else scales)
    if count != len(names):
        raise Unsupported(f"{count} scales or sizes for {len(names)} axes")
    if min(extents, default=1) < 1 or len(set(names)) < len(names):
        raise Unsupported(f"axes {names} of extents {extents}")
    if sizes is not None:
        ratios = [float(size) / extent for size, extent in zip(sizes, extents, strict=True)]
        policy = node.get_str("keep_aspect_ratio_policy", "stretch")
        if policy == "stretch":
            targets = [_target(float(size)) for size in sizes]
        else:
            ratio = min(ratios) if policy == "not_larger" else max(ratios)
            ratios = [ratio] * len(names)
            targets = [_target(ratio * extent + 0.5) for extent in extents]
    else:
        ratios = [float(scale) for scale in scales]
        targets = [_target(ratio * extent) for ratio, extent in zip(ratios, extents, strict=True)]
    roi = ctx.entry(node, roi_at) if ctx.has(node, roi_at) else None
    regions = [(0.0, 1.0)] * len(names)
    if isinstance(roi, Known) and roi.array.size == 2 * len(names):
        corners = roi.array.reshape(2, -1).astype(float)
        regions = list(zip(*corners.tolist(), strict=True))
    return [_Axis(*item) for item in zip(names, extents, targets, ratios, regions, strict=True)]


def _target(extent: float) -> int:
    if not 1 <= extent < MAX_EXTENT:
        raise Unsupported(f"an axis of the result would have {extent:g} elements; 1 to {MAX_EXTENT - 1} are supported")
    return math.floor(extent)


def _optional(ctx: Context, node: Node, index: int, what: str) -> np.ndarray | None:
    if not ctx.has(node, index):
        return None
    array = ctx.known(node, index, what).reshape(-1)
    return array if array.size else None


def _places(mode: str, item: _Axis) -> np.ndarray:
    """Where each element of the result lies in the input."""
    i, scale = np.arange(item.target, dtype=np.float64), item.scale
    length = item.extent * scale  # of the result, before it was made whole
    match mode:
        case "half_pixel":
            return (i + 0.5) / scale - 0.5
        case "half_pixel_symmetric":
            adjustment = item.target / length
            return item.extent / 2 * (1 - adjustment) + (i + 0.5) / scale - 0.5
        case "pytorch_half_pixel":
            return (i + 0.5) / scale - 0.5 if item.target > 1 else np.zeros(1)
        case "align_corners":
            return i * (item.extent - 1) / (length - 1) if length > 1 else np.zeros(item.target)
        case "asymmetric":
            return i / scale
        case "tf_half_pixel_for_nn":
            return (i + 0.5) / scale
        case "tf_crop_and_resize":
            start, end = item.region
            if item.target == 1:
                return np.array([0.5 * (start + end) * (item.extent - 1)])
            return start * (item.extent - 1) + i * (end - start) * (item.extent - 1) / (item.target - 1)
        case _:
            raise Unsupported(f"coordinate_transformation_mode `{mode}` is unknown")


def _rounded(mode: str, places: np.ndarray) -> np.ndarray:
    rules: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "round_prefer_floor": lambda x: np.ceil(x - 0.5),
        "round_prefer_ceil": lambda x: np.floor(x + 0.5),
        "floor": np.floor,
        "ceil": np.ceil,
    }
    if mode not in rules:
        raise Unsupported(f"nearest_mode `{mode}` is unknown")
    return rules[mode](places).astype(np.int64)


def _tables(node: Node, mode: str, places: np.ndarray, item: _Axis) -> tuple[np.ndarray, np.ndarray]:
    """Positions and weights [target, taps]: taps outside of the input read its edge, or count for nothing."""
    antialias = bool(node.get_int("antialias", 0))
    stretch = max(1.0, 1 / item.scale) if antialias else 1.0  # the kernel covers what one element stands for
    a = node.get_float("cubic_coeff_a", -0.75)
    if mode == "linear":
        reach, kernel = 1, lambda d: np.maximum(1 - np.abs(d), 0)
    elif mode == "cubic":
        reach, kernel = 2, lambda d: _cubic(np.abs(d), a)
    else:
        raise Unsupported(f"mode `{mode}` is unknown")
    taps = math.ceil(reach * stretch)
    positions = np.floor(places).astype(np.int64)[:, None] + np.arange(1 - taps, taps + 1)
    weights = kernel((places[:, None] - positions) / stretch)
    if node.get_int("exclude_outside", 0):
        weights = np.where((positions < 0) | (positions >= item.extent), 0, weights)
    weights = weights / weights.sum(1, keepdims=True)
    return np.clip(positions, 0, item.extent - 1).astype(np.int32), weights


def _cubic(d: np.ndarray, a: float) -> np.ndarray:
    """Keys' kernel (1981) with parameter `a`."""
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def _interpolate(ctx: Context, node: Node, x: Value, item: _Axis, positions: np.ndarray, weights: np.ndarray) -> Value:
    if not x.type.dtype.is_float:
        raise Unsupported(f"interpolates {x.type.dtype.value}")
    tables = ctx.constant(node, positions), ctx.constant(node, weights.astype(x.type.dtype.numpy))
    return ctx.emit(node, Resample(item.axis), x, *tables)


def _cropped(ctx: Context, node: Node, x: Value, axes: Sequence[_Axis], region: Value) -> Value:
    """`tf_crop_and_resize` of a region[starts..., ends...] that is known at run time, in parts of the extents."""
    mode = node.get_str("mode", "nearest")
    if region.type.shape != (2 * len(axes),) or mode not in ("nearest", "linear"):
        raise Unsupported(f"mode `{mode}` in a region {region.type} of {len(axes)} axes at run time")
    sampler = Sampler(ctx.writer(node), "border", False)
    region = sampler.writer.cast(region, DType.F32)
    inside = []
    for index, item in enumerate(axes):
        start, end = (sampler(Slice((i,), (i + 1,), (1,)), region) for i in (index, index + len(axes)))
        last = item.extent - 1
        if item.target == 1:
            place = sampler.times(sampler(Add(), start, end), 0.5 * last)
        else:
            steps = np.arange(item.target) * last / (item.target - 1)
            moved = sampler(Mul(), sampler(Sub(), end, start), sampler.writer.constant(steps.astype(np.float32)))
            place = sampler(Add(), sampler.times(start, last), moved)
        low, high = sampler.writer.number(0, place), sampler.writer.number(last, place)
        hit = sampler(BitAnd(), sampler(LessEqual(), low, place), sampler(LessEqual(), place, high))
        inside.append(sampler(Reshape((item.target, *(1,) * (x.type.rank - 1 - item.axis))), hit))
        if mode == "nearest":
            rounding = node.get_str("nearest_mode", "round_prefer_floor")
            nearest = sampler(Clip(0, last), _rounded_at_run_time(sampler, rounding, place))
            x = sampler(Gather(item.axis), x, sampler.writer.cast(nearest, DType.I32))
        else:
            taps = sampler.linear(place, item.extent)
            positions, weights = (
                sampler.writer.join([sampler(Reshape((item.target, 1)), part) for part in parts], 1)
                for parts in zip(*((tap.position, tap.weight) for tap in taps), strict=True)
            )
            positions, weights = sampler.writer.cast(positions, DType.I32), sampler.writer.cast(weights, x.type.dtype)
            x = sampler(Resample(item.axis), x, positions, weights)
    value = sampler.writer.number(node.get_float("extrapolation_value", 0.0), x)
    for hit in inside:
        x = sampler(Where(), hit, x, value)
    return x


def _rounded_at_run_time(sampler: Sampler, mode: str, place: Value) -> Value:
    shifted = {"round_prefer_floor": (Ceil(), -0.5), "round_prefer_ceil": (Floor(), 0.5)}
    plain = {"floor": (Floor(), 0.0), "ceil": (Ceil(), 0.0)}
    if mode not in shifted | plain:
        raise Unsupported(f"nearest_mode `{mode}` is unknown")
    op, shift = (shifted | plain)[mode]
    return sampler(op, sampler.plus(place, shift))


def _extrapolated(ctx: Context, node: Node, x: Value, axes: Sequence[_Axis], outside: Sequence[np.ndarray]) -> Value:
    """What lies outside of the input has the extrapolation value."""
    value = node.get_float("extrapolation_value", 0.0)
    for item, lost in zip(axes, outside, strict=True):
        if lost.any():
            shape = (-1, *(1,) * (x.type.rank - 1 - item.axis))
            inside = ctx.constant(node, (~lost).astype(x.type.dtype.numpy).reshape(shape))
            x = ctx.emit(node, Mul(), x, inside)
            x = ctx.emit(node, Add(), x, ctx.constant(node, (lost * value).astype(x.type.dtype.numpy).reshape(shape)))
    return x


RESIZES = {"Resize": _resize, "Upsample": _upsample}
