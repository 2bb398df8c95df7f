"""Operators that move elements without computing on them, and those that ask for a shape."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgec.frontend.onnx.arguments import (
    broadcast,
    normal_axes,
    normal_axis,
    reshape_target,
    slice_ranges,
    split_sizes,
    squeezed,
    unsqueezed,
)
from edgec.frontend.onnx.context import Context, Converted, Known
from edgec.frontend.onnx.model import Node, Unsupported
from edgec.frontend.onnx.ops_indexing import bounded, pick
from edgec.frontend.onnx.upgrade import ALIGN
from edgec.frontend.runs import few_runs
from edgec.graph.ir import Value
from edgec.graph.ops.broadcast_to import BroadcastTo
from edgec.graph.ops.gather import Gather
from edgec.graph.ops.pad import Pad
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.slice import Slice
from edgec.graph.ops.transpose import Transpose
from edgec.graph.ops.where import Where


def _to_shape(ctx: Context, node: Node, shape: tuple[int, ...], index: int = 0) -> Converted:
    """An input under another shape; itself if it has that shape already."""
    if ctx.type(node, index).shape == shape:
        return ctx.entry(node, index)
    return ctx.emit(node, Reshape(shape), ctx.value(node, index))


def _optional_ints(ctx: Context, node: Node, index: int, name: str) -> tuple[int, ...] | None:
    """A list of integers that is an input in newer opsets and the attribute `name` in older ones; None if absent."""
    if ctx.has(node, index):
        return ctx.known_ints(node, index, f"the list of {name}")
    return node.get_ints(name) if name in node.attributes else None


def _reshape(ctx: Context, node: Node) -> Converted:
    wanted = ctx.known_ints(node, 1, "the target shape")
    allow_zero = bool(node.get_int("allowzero", 0))
    return _to_shape(ctx, node, reshape_target(ctx.type(node, 0).shape, wanted, allow_zero=allow_zero))


def _flatten(ctx: Context, node: Node) -> Converted:
    shape = ctx.type(node, 0).shape
    axis = node.get_int("axis", 1)
    axis = len(shape) if axis == len(shape) else normal_axis(axis, len(shape))
    return _to_shape(ctx, node, (math.prod(shape[:axis]), math.prod(shape[axis:])))


def _squeeze(ctx: Context, node: Node) -> Converted:
    return _to_shape(ctx, node, squeezed(ctx.type(node, 0).shape, _optional_ints(ctx, node, 1, "axes")))


def _unsqueeze(ctx: Context, node: Node) -> Converted:
    return _to_shape(ctx, node, unsqueezed(ctx.type(node, 0).shape, _optional_ints(ctx, node, 1, "axes") or ()))


def _align(ctx: Context, node: Node) -> Converted:
    """Input 1 with as many extents of 1 behind its own that its first axis meets `axis` of input 0."""
    rank, shape = ctx.type(node, 0).rank, ctx.type(node, 1).shape
    axis = normal_axis(node.get_int("axis"), rank)
    if axis + len(shape) > rank:
        raise Unsupported(f"aligns {list(shape)} with axis {axis} of {rank}")
    return _to_shape(ctx, node, (*shape, *(1,) * (rank - axis - len(shape))), 1)


def _transpose(ctx: Context, node: Node) -> Converted:
    rank = ctx.type(node, 0).rank
    perm = node.get_ints("perm", tuple(reversed(range(rank))))
    if perm == tuple(range(rank)):
        return ctx.entry(node, 0)
    return ctx.emit(node, Transpose(perm), ctx.value(node, 0))


def _concat(ctx: Context, node: Node) -> Converted:
    axis = normal_axis(node.get_int("axis", 1), ctx.type(node, 0).rank)
    return joined(ctx, node, [ctx.value(node, index) for index in range(len(node.inputs))], axis)


def joined(ctx: Context, node: Node, parts: Sequence[Value], axis: int) -> Value:
    """`parts` one after the other along `axis`."""
    return ctx.writer(node).join(parts, axis)


def _taken(ctx: Context, node: Node, x: Value, ranges: Sequence[range]) -> Value:
    """The elements of `x` at `ranges`, one for each axis."""
    for axis, r in enumerate(ranges):
        if r.step < 0:  # reversed by a gather, and whole from here on
            bounded(len(r))
            x = pick(ctx, node, x, axis, list(r))
            ranges = [*ranges[:axis], range(len(r)), *ranges[axis + 1 :]]
    if all(r == range(extent) for r, extent in zip(ranges, x.type.shape, strict=True)):
        return x
    starts = tuple(r.start for r in ranges)
    return ctx.emit(node, Slice(starts, tuple(max(r.start, r.stop) for r in ranges), tuple(r.step for r in ranges)), x)


def _slice(ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    starts, ends, axes, steps = (
        _optional_ints(ctx, node, index, name) for index, name in enumerate(("starts", "ends", "axes", "steps"), 1)
    )
    if starts is None or ends is None:
        raise Unsupported("starts or ends are missing")
    return _taken(ctx, node, x, slice_ranges(x.type.shape, starts, ends, axes, steps))


def _split(ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    axis = normal_axis(node.get_int("axis", 0), x.type.rank)
    sizes = split_sizes(x.type.shape[axis], len(node.outputs), _optional_ints(ctx, node, 1, "split"))
    return tuple(pieces(ctx, node, x, axis, sizes))


def pieces(ctx: Context, node: Node, x: Value, axis: int, sizes: Sequence[int]) -> list[Value]:
    """`x` cut along `axis` into parts of `sizes`, whose sum is its extent."""
    parts, start = [], 0
    for size in sizes:
        ranges = [range(extent) for extent in x.type.shape]
        ranges[axis] = range(start, start + size)
        parts.append(_taken(ctx, node, x, ranges))
        start += size
    return parts


def _gather(ctx: Context, node: Node) -> Converted:
    """Known indices that form few runs are slices, joined, in the shape of the indices; all others a gather."""
    x = ctx.value(node, 0)
    axis = normal_axis(node.get_int("axis", 0), x.type.rank)
    entry = ctx.entry(node, 1)
    if isinstance(entry, Value):
        return ctx.emit(node, Gather(axis), x, entry)
    shape, indices = x.type.shape, entry.array
    flat = [int(index) for index in indices.reshape(-1)]
    if indices.dtype.kind not in "iu" or any(not -shape[axis] <= index < shape[axis] for index in flat):
        raise Unsupported(f"an index is out of range for {shape[axis]}")
    runs = few_runs([index % shape[axis] for index in flat])
    if not runs:
        return ctx.emit(node, Gather(axis), x, ctx.value(node, 1))
    whole = [range(extent) for extent in shape]
    parts = [_taken(ctx, node, x, [*whole[:axis], run, *whole[axis + 1 :]]) for run in runs]
    y = joined(ctx, node, parts, axis)
    target = (*shape[:axis], *indices.shape, *shape[axis + 1 :])
    return y if y.type.shape == target else ctx.emit(node, Reshape(target), y)


def _pad(ctx: Context, node: Node) -> Converted:
    mode = node.get_str("mode", "constant")
    x = ctx.value(node, 0)
    rank = x.type.rank
    pads = _optional_ints(ctx, node, 1, "pads")
    axes = ctx.known_ints(node, 3, "the list of axes") if ctx.has(node, 3) else tuple(range(rank))
    if pads is None or len(pads) != 2 * len(axes):
        raise Unsupported("pads do not fit the rank of the input")
    if node.opset < 11:
        value = node.get_float("value", 0.0)
    elif ctx.has(node, 2) and isinstance(ctx.entry(node, 2), Value):
        value = 0.0  # set below, where everything else is in place
    else:
        value = ctx.known_scalar(node, 2, "the padding value") if ctx.has(node, 2) else 0.0
    if not x.type.dtype.is_float and not math.isfinite(value):
        raise Unsupported(f"pads integers with {value}")
    normal_axes(axes, rank)
    low, high = [0] * rank, [0] * rank
    for position, axis in enumerate(axes):
        low[axis], high[axis] = pads[position], pads[position + len(axes)]
    # Negative padding cuts.
    ranges = [
        range(max(-before, 0), extent - max(-after, 0))
        for before, after, extent in zip(low, high, x.type.shape, strict=True)
    ]
    x = _taken(ctx, node, x, ranges)
    if mode != "constant":
        for axis in range(rank):
            x = pick(ctx, node, x, axis, _mirrored(mode, max(low[axis], 0), x.type.shape[axis], max(high[axis], 0)))
        return x
    op = Pad(tuple(max(n, 0) for n in low), tuple(max(n, 0) for n in high), value)
    if not any(op.low) and not any(op.high):
        return x
    y = ctx.emit(node, op, x)
    if node.opset < 11 or not ctx.has(node, 2) or not isinstance(ctx.entry(node, 2), Value):
        return y
    bounded(y.type.size)
    inside = np.zeros(y.type.shape, bool)
    inside[tuple(slice(start, start + n) for start, n in zip(op.low, x.type.shape, strict=True))] = True
    fill = ctx.value(node, 2)
    if fill.type.size != 1:
        raise Unsupported(f"the padding value has {fill.type.size} elements")
    fill = fill if not fill.type.shape else ctx.emit(node, Reshape(()), fill)
    return ctx.emit(node, Where(), ctx.constant(node, inside), y, fill)


def _mirrored(mode: str, low: int, extent: int, high: int) -> np.ndarray:
    """Where the elements of a padded axis come from."""
    bounded(low + extent + high)
    positions = np.arange(-low, extent + high)
    if not extent and len(positions):
        raise Unsupported("pads an axis without elements by its elements")
    match mode:
        case "edge":
            return np.clip(positions, 0, extent - 1)
        case "wrap":
            return positions % extent
        case "reflect":
            period = max(2 * (extent - 1), 1)
            return extent - 1 - np.abs(positions % period - (extent - 1))
        case _:
            raise Unsupported(f"padding mode `{mode}` is unknown")


def _expand(ctx: Context, node: Node) -> Converted:
    shape = ctx.type(node, 0).shape
    target = broadcast(shape, ctx.known_ints(node, 1, "the target shape"))
    return ctx.entry(node, 0) if target == shape else ctx.emit(node, BroadcastTo(target), ctx.value(node, 0))


def _tile(ctx: Context, node: Node) -> Converted:
    """Each axis gains one before it, which is stretched and merged."""
    x = ctx.value(node, 0)
    repeats = ctx.known_ints(node, 1, "the list of repeats")
    if len(repeats) != x.type.rank or min(repeats, default=1) < 1:
        raise Unsupported(f"repeats {list(repeats)} do not fit")
    if all(repeat == 1 for repeat in repeats):
        return x
    pairs = list(zip(repeats, x.type.shape, strict=True))
    y = ctx.emit(node, Reshape(tuple(n for _, extent in pairs for n in (1, extent))), x)
    y = ctx.emit(node, BroadcastTo(tuple(n for pair in pairs for n in pair)), y)
    return ctx.emit(node, Reshape(tuple(repeat * extent for repeat, extent in pairs)), y)


def _blocks(ctx: Context, node: Node) -> tuple[Value, int, tuple[int, int, int, int]]:
    x, block = ctx.value(node, 0), node.get_int("blocksize")
    if x.type.rank != 4 or block < 1:
        raise Unsupported(f"rank {x.type.rank} and block size {block}; rank 4 and a positive block are supported")
    return x, block, x.type.shape


def _depth_to_space(ctx: Context, node: Node) -> Converted:
    x, b, (n, c, h, w) = _blocks(ctx, node)
    if c % (b * b):
        raise Unsupported(f"{c} channels are not a multiple of {b * b}")
    # DCR: channels are (row, column, depth); CRD: (depth, row, column).
    if node.get_str("mode", "DCR") == "DCR":
        shape, perm = (n, b, b, c // (b * b), h, w), (0, 3, 4, 1, 5, 2)
    else:
        shape, perm = (n, c // (b * b), b, b, h, w), (0, 1, 4, 2, 5, 3)
    y = ctx.emit(node, Transpose(perm), ctx.emit(node, Reshape(shape), x))
    return ctx.emit(node, Reshape((n, c // (b * b), h * b, w * b)), y)


def _space_to_depth(ctx: Context, node: Node) -> Converted:
    x, b, (n, c, h, w) = _blocks(ctx, node)
    if h % b or w % b:
        raise Unsupported(f"{h}x{w} is not a multiple of the block size {b}")
    y = ctx.emit(node, Reshape((n, c, h // b, b, w // b, b)), x)
    perm = (0, 3, 5, 1, 2, 4) if node.get_str("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    y = ctx.emit(node, Transpose(perm), y)
    return ctx.emit(node, Reshape((n, c * b * b, h // b, w // b)), y)


def _shape(ctx: Context, node: Node) -> Converted:
    shape = ctx.type(node, 0).shape
    return Known(np.array(shape[slice(node.get_int("start", 0), node.get_int("end", len(shape)))], np.int64))


def _size(ctx: Context, node: Node) -> Converted:
    return Known(np.array(ctx.type(node, 0).size, np.int64))


MOVEMENTS = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    ALIGN: _align,
    "Transpose": _transpose,
    "Concat": _concat,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "Pad": _pad,
    "Expand": _expand,
    "Tile": _tile,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Shape": _shape,
    "Size": _size,
}
