"""Operators that move elements without computing: reshaping, cutting, joining, padding, nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from edgec.frontend.runs import few_runs
from edgec.frontend.torch.call import Call, Unsupported
from edgec.frontend.torch.context import Context, Converted, normal_axis
from edgec.graph.ir import Value
from edgec.graph.ops.broadcast_to import BroadcastTo
from edgec.graph.ops.gather import Gather
from edgec.graph.ops.pad import Pad
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.slice import Slice
from edgec.graph.ops.transpose import Transpose
from edgec.graph.types import DType


def reshape(ctx: Context, call: Call, x: Value, shape: Sequence[int]) -> Value:
    return x if x.type.shape == tuple(shape) else ctx.emit(call, Reshape(tuple(shape)), x)


def transpose(ctx: Context, call: Call, x: Value, perm: Sequence[int]) -> Value:
    return x if tuple(perm) == tuple(range(len(perm))) else ctx.emit(call, Transpose(tuple(perm)), x)


def expand(ctx: Context, call: Call, x: Value, shape: Sequence[int]) -> Value:
    return x if x.type.shape == tuple(shape) else ctx.emit(call, BroadcastTo(tuple(shape)), x)


def cut(ctx: Context, call: Call, x: Value, axis: int, taken: range) -> Value:
    """The elements of `x` at `taken` along `axis`."""
    if taken == range(x.type.shape[axis]):
        return x
    starts, ends, steps = [0] * x.type.rank, list(x.type.shape), [1] * x.type.rank
    starts[axis], ends[axis], steps[axis] = taken.start, max(taken.start, taken.stop), taken.step
    return ctx.emit(call, Slice(tuple(starts), tuple(ends), tuple(steps)), x)


def join(ctx: Context, call: Call, parts: Sequence[Value], axis: int) -> Value:
    return ctx.writer(call).join(parts, axis)


def take(ctx: Context, call: Call, x: Value, axis: int, indices: Sequence[int]) -> Value:
    """Known indices along an axis: slices of the runs in them, joined, or a gather."""
    extent = x.type.shape[axis]
    if any(not -extent <= index < extent for index in indices):
        raise Unsupported(f"an index is out of range for {extent}")
    runs = few_runs([index % extent for index in indices])
    if not indices:
        raise Unsupported("takes none of the elements")
    if not runs:
        return ctx.emit(call, Gather(axis), x, ctx.constant(call, np.array(indices), DType.I64))
    return join(ctx, call, [cut(ctx, call, x, axis, run) for run in runs], axis)


def _reshape(ctx: Context, call: Call) -> Converted:
    """All that keeps the order of elements: the program says the shape of the result."""
    return reshape(ctx, call, ctx.value(call, "self"), call.shape)


def _transpose(ctx: Context, call: Call) -> Converted:
    x = ctx.value(call, "self")
    perm = list(range(x.type.rank))
    if perm:
        a, b = ctx.axis(call, "dim0", x.type.rank), ctx.axis(call, "dim1", x.type.rank)
        perm[a], perm[b] = perm[b], perm[a]
    return transpose(ctx, call, x, perm)


def _t(ctx: Context, call: Call) -> Converted:
    x = ctx.value(call, "self")
    return transpose(ctx, call, x, tuple(reversed(range(x.type.rank))))


def _permute(ctx: Context, call: Call) -> Converted:
    x = ctx.value(call, "self")
    return transpose(ctx, call, x, [normal_axis(axis, x.type.rank) for axis in ctx.integers(call, "dims")])


def _expand(ctx: Context, call: Call) -> Converted:
    return expand(ctx, call, ctx.value(call, "self"), call.shape)


def _repeat(ctx: Context, call: Call) -> Converted:
    """Each axis gains one before it, which is stretched and merged."""
    x, repeats = ctx.value(call, "self"), ctx.integers(call, "repeats")
    shape = (1,) * (len(repeats) - x.type.rank) + x.type.shape
    pairs = list(zip(repeats, shape, strict=True))
    y = reshape(ctx, call, x, [n for _, extent in pairs for n in (1, extent)])
    y = expand(ctx, call, y, [n for pair in pairs for n in pair])
    return reshape(ctx, call, y, call.shape)


def _cat(ctx: Context, call: Call) -> Converted:
    # torch lets empty vectors stand among tensors of any rank.
    parts = [part for part in ctx.values(call, "tensors") if part.type.shape != (0,) or call.shape == (0,)]
    if any(part.type.dtype is not call.type.dtype for part in parts):
        raise Unsupported("joins tensors of different dtypes")
    return join(ctx, call, parts, ctx.axis(call, "dim", len(call.shape)))


def _stack(ctx: Context, call: Call) -> Converted:
    axis = ctx.axis(call, "dim", len(call.shape))
    shape = (*call.shape[:axis], 1, *call.shape[axis + 1 :])
    return join(ctx, call, [reshape(ctx, call, part, shape) for part in ctx.values(call, "tensors")], axis)


def _slice_range(ctx: Context, call: Call, extent: int) -> range:
    """As Python's slices, with any end beyond the extent."""
    bounds = [ctx.integer(call, name) if ctx.has(call, name) else None for name in ("start", "end", "step")]
    return range(*slice(*bounds).indices(extent))


def _slice(ctx: Context, call: Call) -> Converted:
    x = ctx.value(call, "self")
    axis = ctx.axis(call, "dim", x.type.rank)
    return cut(ctx, call, x, axis, _slice_range(ctx, call, x.type.shape[axis]))


def _select(ctx: Context, call: Call) -> Converted:
    x = ctx.value(call, "self")
    axis = ctx.axis(call, "dim", x.type.rank)
    index = ctx.integer(call, "index") % x.type.shape[axis]
    return reshape(ctx, call, cut(ctx, call, x, axis, range(index, index + 1)), call.shape)


def _insert(ctx: Context, call: Call, x: Value, axis: int, taken: range, part: Value) -> Value:
    """`x` with `part` in the place of `taken`."""
    if taken.step != 1:
        raise Unsupported("assigns to every other element")
    extent = x.type.shape[axis]
    before, after = range(taken.start), range(max(taken.start, taken.stop), extent)
    parts = [cut(ctx, call, x, axis, before)] if before else []
    parts += [part] if taken else []
    parts += [cut(ctx, call, x, axis, after)] if after else []
    return join(ctx, call, parts, axis)


def _slice_scatter(ctx: Context, call: Call) -> Converted:
    x = ctx.value(call, "self")
    axis = ctx.axis(call, "dim", x.type.rank)
    taken = _slice_range(ctx, call, x.type.shape[axis])
    return _insert(ctx, call, x, axis, taken, ctx.value(call, "src"))


def _select_scatter(ctx: Context, call: Call) -> Converted:
    x = ctx.value(call, "self")
    axis = ctx.axis(call, "dim", x.type.rank)
    index = ctx.integer(call, "index") % x.type.shape[axis]
    part = reshape(ctx, call, ctx.value(call, "src"), (*x.type.shape[:axis], 1, *x.type.shape[axis + 1 :]))
    return _insert(ctx, call, x, axis, range(index, index + 1), part)


def _split(ctx: Context, call: Call) -> Converted:
    """Into equal parts or parts of given sizes: the program says the extents."""
    x = ctx.value(call, "self")
    axis = ctx.axis(call, "dim", x.type.rank)
    parts, start = [], 0
    for kind in call.results:
        if kind is None:
            raise Unsupported("a part is not a tensor")
        parts.append(cut(ctx, call, x, axis, range(start, start + kind.shape[axis])))
        start += kind.shape[axis]
    return tuple(parts)


def _unbind(ctx: Context, call: Call) -> Converted:
    x = ctx.value(call, "self")
    axis = ctx.axis(call, "dim", x.type.rank)
    shape = (*x.type.shape[:axis], *x.type.shape[axis + 1 :])
    return tuple(
        reshape(ctx, call, cut(ctx, call, x, axis, range(index, index + 1)), shape)
        for index in range(x.type.shape[axis])
    )


def _flip(ctx: Context, call: Call) -> Converted:
    y = ctx.value(call, "self")
    for axis in ctx.axes(call, "dims", y.type.rank):
        y = take(ctx, call, y, axis, list(reversed(range(y.type.shape[axis]))))
    return y


def _roll(ctx: Context, call: Call) -> Converted:
    y = ctx.value(call, "self")
    shifts, dims = ctx.integers(call, "shifts"), ctx.integers(call, "dims")
    flat = not dims
    if flat:
        y, dims = reshape(ctx, call, y, (y.type.size,)), (0,)
    for shift, dim in zip(shifts, dims, strict=True):
        axis = normal_axis(dim, y.type.rank)
        extent = y.type.shape[axis]
        start = -shift % extent if extent else 0
        if start:
            pieces = [cut(ctx, call, y, axis, range(start, extent)), cut(ctx, call, y, axis, range(start))]
            y = join(ctx, call, pieces, axis)
    return reshape(ctx, call, y, call.shape)


def _pad(ctx: Context, call: Call) -> Converted:
    x, pads = ctx.value(call, "self"), ctx.integers(call, "pad")
    low, high = [0] * x.type.rank, [0] * x.type.rank
    # Pairs from the last axis on; negative padding cuts.
    for number in range(len(pads) // 2):
        axis = x.type.rank - 1 - number
        before, after = pads[2 * number : 2 * number + 2]
        x = cut(ctx, call, x, axis, range(max(-before, 0), x.type.shape[axis] - max(-after, 0)))
        low[axis], high[axis] = max(before, 0), max(after, 0)
    if not any(low) and not any(high):
        return x
    return ctx.emit(call, Pad(tuple(low), tuple(high), float(ctx.number(call, "value"))), x)


def _mirror(index: Callable[[int, int], int], ctx: Context, call: Call) -> Converted:
    """Padding by elements of the tensor: `index(i, extent)` is the one that stands at i, which may lie outside."""
    y, pads = ctx.value(call, "self"), ctx.integers(call, "padding")
    for number in range(len(pads) // 2):
        axis = y.type.rank - 1 - number
        before, after = pads[2 * number : 2 * number + 2]
        extent = y.type.shape[axis]
        y = take(ctx, call, y, axis, [index(i, extent) for i in range(-before, extent + after)])
    return y


def _reflected(i: int, extent: int) -> int:
    i = abs(i)
    return i if i < extent else 2 * (extent - 1) - i


def _replicated(i: int, extent: int) -> int:
    return min(max(i, 0), extent - 1)


def _diagonal(ctx: Context, call: Call) -> Converted:
    """The elements x[i,i+offset] of two axes as the last one: with these axes as one, every (columns + 1)-th."""
    x, offset = ctx.value(call, "self"), ctx.integer(call, "offset")
    first, second = ctx.axis(call, "dim1", x.type.rank), ctx.axis(call, "dim2", x.type.rank)
    rest = [axis for axis in range(x.type.rank) if axis not in (first, second)]
    y = transpose(ctx, call, x, (*rest, first, second))
    *lead, rows, columns = y.type.shape
    start, count = max(offset, -offset * columns), call.shape[-1]
    y = reshape(ctx, call, y, (*lead, rows * columns))
    return cut(ctx, call, y, len(lead), range(start, start + (count - 1) * (columns + 1) + 1, columns + 1))


def _pixel_shuffle(ctx: Context, call: Call) -> Converted:
    x, r = ctx.value(call, "self"), ctx.integer(call, "upscale_factor")
    *lead, c, h, w = x.type.shape
    n = len(lead)
    y = reshape(ctx, call, x, (*lead, c // (r * r), r, r, h, w))
    y = transpose(ctx, call, y, (*range(n), n, n + 3, n + 1, n + 4, n + 2))
    return reshape(ctx, call, y, call.shape)


def _pixel_unshuffle(ctx: Context, call: Call) -> Converted:
    x, r = ctx.value(call, "self"), ctx.integer(call, "downscale_factor")
    *lead, c, h, w = x.type.shape
    n = len(lead)
    y = reshape(ctx, call, x, (*lead, c, h // r, r, w // r, r))
    y = transpose(ctx, call, y, (*range(n), n, n + 2, n + 4, n + 1, n + 3))
    return reshape(ctx, call, y, call.shape)


MOVEMENTS = {
    "aten.view.default": _reshape,
    "aten._unsafe_view.default": _reshape,
    "aten.unsqueeze.default": _reshape,
    "aten.squeeze.default": _reshape,
    "aten.squeeze.dim": _reshape,
    "aten.squeeze.dims": _reshape,
    "aten.transpose.int": _transpose,
    "aten.t.default": _t,
    "aten.permute.default": _permute,
    "aten.expand.default": _expand,
    "aten.repeat.default": _repeat,
    "aten.cat.default": _cat,
    "aten.stack.default": _stack,
    "aten.slice.Tensor": _slice,
    "aten.select.int": _select,
    "aten.slice_scatter.default": _slice_scatter,
    "aten.select_scatter.default": _select_scatter,
    "aten.split.Tensor": _split,
    "aten.split_with_sizes.default": _split,
    "aten.unbind.int": _unbind,
    "aten.flip.default": _flip,
    "aten.roll.default": _roll,
    "aten.constant_pad_nd.default": _pad,
    "aten.reflection_pad1d.default": partial(_mirror, _reflected),
    "aten.reflection_pad2d.default": partial(_mirror, _reflected),
    "aten.replication_pad1d.default": partial(_mirror, _replicated),
    "aten.replication_pad2d.default": partial(_mirror, _replicated),
    "aten.diagonal.default": _diagonal,
    "aten.pixel_shuffle.default": _pixel_shuffle,
    "aten.pixel_unshuffle.default": _pixel_unshuffle,
}
