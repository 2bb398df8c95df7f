"""x[i, :, j] and x[i, j] = y, with tensors of positions or masks: one position in the axes that they index, merged."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from edgec.frontend.torch.call import Call, Known, Unsupported, type_of
from edgec.frontend.torch.context import Context, Converted, Entry, to_numpy
from edgec.frontend.torch.ops_elementwise import operand
from edgec.frontend.torch.ops_index import picked
from edgec.frontend.torch.ops_movement import expand, reshape, transpose
from edgec.graph.ir import Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.gather_nd import GatherNd
from edgec.graph.ops.less import Less
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.scatter_nd import ScatterNd
from edgec.graph.ops.where import Where
from edgec.graph.types import DType

Shape = tuple[int, ...]


@dataclass(frozen=True)
class _Indices:
    """axes: those that are indexed, ascending. entries: for each its positions. shape: that of all of them together."""

    axes: tuple[int, ...]
    entries: tuple[Entry, ...]
    shape: Shape

    @property
    def adjacent(self) -> bool:
        return self.axes == tuple(range(self.axes[0], self.axes[0] + len(self.axes)))

    def first(self, rank: int) -> tuple[int, ...]:
        """The permutation that brings the indexed axes to the front."""
        return (*self.axes, *(axis for axis in range(rank) if axis not in self.axes))


def _shape_of(entry: Entry) -> Shape:
    return entry.type.shape if isinstance(entry, Value) else tuple(entry.tensor.shape)


def _is_mask(entry: Entry) -> bool:
    kind = entry.type if isinstance(entry, Value) else type_of(entry.tensor)
    return kind.dtype in (DType.BOOL, DType.U8)


def _read_indices(ctx: Context, call: Call) -> _Indices:
    """A known mask stands for the positions at which it is true, one index for each of its axes."""
    axes: list[int] = []
    entries: list[Entry] = []
    axis = 0
    for item in ctx.list(call, "indices"):
        if item is None:
            axis += 1
            continue
        entry = ctx.resolve(item)
        if _is_mask(entry):
            if isinstance(entry, Value):
                raise Unsupported("its output shape depends on data")
            found = [Known(part) for part in entry.tensor.bool().nonzero(as_tuple=True)]
        else:
            found = [entry]
        axes += range(axis, axis + len(found))
        entries += found
        axis += len(found)
    return _Indices(tuple(axes), tuple(entries), tuple(torch.broadcast_shapes(*map(_shape_of, entries))))


def _merged(ctx: Context, call: Call, indices: _Indices, extents: Shape) -> Entry:
    """One position in the indexed axes taken as one, of the common shape; negative positions count from the end."""
    if all(isinstance(entry, Known) for entry in indices.entries):
        place = torch.zeros((), dtype=torch.int64)
        for entry, extent in zip(indices.entries, extents, strict=True):
            place = place * extent + entry.tensor.long() % extent
        return Known(place.expand(indices.shape).contiguous())
    merged: Value | None = None
    for entry, extent in zip(indices.entries, extents, strict=True):
        place = _places(ctx, call, entry)
        size = ctx.scalar(call, extent, place)
        if isinstance(entry, Value) and len(extents) > 1:
            behind = ctx.emit(call, Less(), place, ctx.scalar(call, 0, place))
            place = ctx.emit(call, Where(), behind, ctx.emit(call, Add(), place, size), place)
        merged = place if merged is None else ctx.emit(call, Add(), ctx.emit(call, Mul(), merged, size), place)
    assert merged is not None  # there is an index
    return expand(ctx, call, merged, indices.shape)


def _places(ctx: Context, call: Call, entry: Entry) -> Value:
    """Positions as i64; known ones counted from the front."""
    if isinstance(entry, Known):
        return ctx.constant(call, to_numpy(entry.tensor), DType.I64)
    return ctx.writer(call).cast(entry, DType.I64)


def _index(ctx: Context, call: Call) -> Converted:
    x, indices = ctx.value(call, "self"), _read_indices(ctx, call)
    if len(indices.axes) == 1:
        return picked(ctx, call, x, indices.axes[0], indices.entries[0])
    if _row_by_row(indices, x.type.shape):
        return _of_each_row(ctx, call, x, indices)
    extents = tuple(x.type.shape[axis] for axis in indices.axes)
    at = indices.axes[0] if indices.adjacent else 0
    if not indices.adjacent:
        x = transpose(ctx, call, x, indices.first(x.type.rank))
    shape = x.type.shape
    flat = reshape(ctx, call, x, (*shape[:at], math.prod(extents), *shape[at + len(extents) :]))
    return picked(ctx, call, flat, at, _merged(ctx, call, indices, extents))


def _row_by_row(indices: _Indices, shape: Shape) -> bool:
    """x[arange(N), i]: whether the first index walks along the first axis."""
    rows = indices.entries[0]
    if indices.axes[0] != 0 or not indices.adjacent or not isinstance(rows, Known) or not indices.shape:
        return False
    if indices.shape[0] != shape[0] or all(isinstance(entry, Known) for entry in indices.entries):
        return False
    walk = torch.arange(shape[0]).reshape(-1, *(1,) * (len(indices.shape) - 1))
    return torch.equal(rows.tensor.expand(indices.shape), walk.expand(indices.shape))


def _of_each_row(ctx: Context, call: Call, x: Value, indices: _Indices) -> Value:
    """What each image picks of itself: so a batch of another size does the same."""
    rest = _Indices(indices.axes[1:], indices.entries[1:], indices.shape)
    extents = tuple(x.type.shape[axis] for axis in rest.axes)
    flat = reshape(ctx, call, x, (x.type.shape[0], math.prod(extents), *x.type.shape[1 + len(extents) :]))
    place = ctx.as_value(_merged(ctx, call, rest, extents))
    return ctx.emit(call, GatherNd(1), flat, reshape(ctx, call, place, (*place.type.shape, 1)))


def _index_put(ctx: Context, call: Call) -> Converted:
    x = ctx.value(call, "self")
    items = ctx.list(call, "indices")
    masks = [ctx.resolve(item) for item in items if item is not None]
    if len(masks) == 1 and items[0] is not None and isinstance(masks[0], Value) and _is_mask(masks[0]):
        return _masked_put(ctx, call, x, masks[0])
    indices = _read_indices(ctx, call)
    extents = tuple(x.type.shape[axis] for axis in indices.axes)
    perm = indices.first(x.type.rank)
    moved = transpose(ctx, call, x, perm)
    rest = moved.type.shape[len(extents) :]
    flat = reshape(ctx, call, moved, (math.prod(extents), *rest))
    place = ctx.as_value(_merged(ctx, call, indices, extents))
    values = operand(ctx, call, "values")
    lead = indices.axes[0] if indices.adjacent else 0
    # Where the positions stand behind other axes, so they do in the values.
    shape = (*rest[:lead], *indices.shape, *rest[lead:])
    values = expand(ctx, call, values, shape)
    count = len(indices.shape)
    front = (*range(lead, lead + count), *range(lead), *range(lead + count, len(shape)))
    op = ScatterNd("add" if ctx.flag(call, "accumulate") else "none")
    y = ctx.emit(
        call,
        op,
        flat,
        reshape(ctx, call, place, (*place.type.shape, 1)),
        transpose(ctx, call, values, front),
    )
    back = sorted(range(len(perm)), key=perm.__getitem__)
    return transpose(ctx, call, reshape(ctx, call, y, moved.type.shape), back)


def _masked_put(ctx: Context, call: Call, x: Value, mask: Value) -> Value:
    """x[mask] = y for a mask known at run time: where y is the same for all places of the mask."""
    values = operand(ctx, call, "values")
    inner = x.type.rank - mask.type.rank
    if values.type.rank > inner and values.type.size != 1:
        raise Unsupported("assigns as many values as a mask selects, a number that depends on data")
    values = reshape(ctx, call, values, ()) if values.type.size == 1 else values
    if ctx.flag(call, "accumulate"):
        values = ctx.emit(call, Add(), x, values)
    return ctx.emit(call, Where(), reshape(ctx, call, mask, (*mask.type.shape, *(1,) * inner)), values, x)


ADVANCED_INDEXING = {
    "aten.index.Tensor": _index,
    "aten._unsafe_index.Tensor": _index,
    "aten.index_put.default": _index_put,
}
