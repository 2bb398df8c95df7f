"""Storages as strides over one common loop nest: what lets a kernel walk several tensors at once.

An index space of some shape is refined until every tensor that takes part moves along each loop by a constant number of
elements: axes are split where a storage splits them or cuts them into panels. Where the last panel is narrower than the
others there are two boxes of the space, each with its own nest. Nothing here loads tvm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgec.runtime.abi import Storage


@dataclass(frozen=True)
class Strides:
    """Element `i` of an index space of shape `dims` lies at `base + sum(i[k] * strides[k])`."""

    dims: tuple[int, ...]
    strides: tuple[int, ...]
    base: int = 0

    def coarsen(self) -> Strides:
        """The same with as few dims as possible: axes that continue one another are one."""
        dims: list[int] = []
        strides: list[int] = []
        for extent, stride in zip(self.dims, self.strides, strict=True):
            if extent == 1:
                continue
            if dims and strides[-1] == stride * extent:
                dims[-1], strides[-1] = dims[-1] * extent, stride
            else:
                dims.append(extent)
                strides.append(stride)
        return Strides(tuple(dims), tuple(strides), self.base)

    def refine(self, dims: Sequence[int]) -> Strides | None:
        """The same over finer `dims` (row-major splits of the own ones), or None if they are not finer."""
        strides: list[int] = []
        position = len(dims)
        for extent, stride in zip(reversed(self.dims), reversed(self.strides), strict=True):
            inner = 1
            while inner < extent:
                position -= 1
                if position < 0:
                    return None
                strides.append(stride * inner)
                inner *= dims[position]
            if inner != extent:
                return None
            while position and dims[position - 1] == 1:
                position -= 1
                strides.append(0)
        return Strides(tuple(dims), tuple(reversed(strides)), self.base) if position == 0 else None


# start <= i < stop for each axis of an index space.
Window = tuple[tuple[int, int], ...]


def whole(shape: Sequence[int]) -> Window:
    return tuple((0, n) for n in shape)


def extents_of(window: Window) -> tuple[int, ...]:
    return tuple(stop - start for start, stop in window)


def panel_block(storage: Storage) -> int:
    """Panel width, 0 where there is one panel."""
    columns = storage.dims[storage.perm[-1]] if storage.perm else 1
    return storage.block if 0 < storage.block < columns else 0


def even_windows(shape: tuple[int, ...], storages: Sequence[Storage]) -> list[Window] | None:
    """Parts of an index space of `shape` in which panels are of one width: all of it, or full panels and the rest.

    None where storages of this shape cut it in ways that do not fit together.
    """
    cuts = set()
    for storage in storages:
        block = panel_block(storage)
        if block and storage.dims[storage.perm[-1]] % block:
            if storage.dims != shape:
                return None
            cuts.add((storage.perm[-1], block))
    if not cuts:
        return [whole(shape)]
    if len(cuts) > 1:
        return None
    ((axis, block),) = cuts
    full = shape[axis] // block * block
    before, after = whole(shape[:axis]), whole(shape[axis + 1 :])
    return [(*before, part, *after) for part in ((0, full), (full, shape[axis]))]


def strides_of(storage: Storage, window: Window | None = None) -> Strides | None:
    """Strides over a storage's own dims, or a window of them; None if its panels are not of one width there."""
    window = window or whole(storage.dims)
    block = panel_block(storage)
    dims, strides = storage.dims, Storage(storage.dims, storage.perm).strides()
    base = 0
    if block:
        axis = storage.perm[-1]
        start, stop = window[axis]
        full = dims[axis] // block * block
        if (
            start % block
            or start < full < stop
            or (stop <= full and stop % block)
            or (start >= full and stop < dims[axis])
        ):
            return None
        width = block if stop <= full else stop - start
        rest = Storage(dims[:axis] + (1,) + dims[axis + 1 :], storage.perm)
        panel = rest.size * width
        dims = (*dims[:axis], (stop - start) // width, width, *dims[axis + 1 :])
        outer = tuple(stride * width for stride in rest.strides())
        strides = (*outer[:axis], panel, 1, *outer[axis + 1 :])
        base = start * rest.size
        window = (*window[:axis], (0, dims[axis]), (0, width), *window[axis + 1 :])
    base += sum(start * stride for (start, _), stride in zip(window, strides, strict=True))
    return Strides(extents_of(window), strides, base)


def broadcast(strides: Strides, shape: tuple[int, ...], target: tuple[int, ...]) -> Strides | None:
    """Strides of a tensor of `shape` over the higher-ranked or wider `target` that numpy broadcasts it to."""
    own = strides.refine(shape) if strides.dims != shape else strides
    if own is None:
        return None
    lead = len(target) - len(shape)
    moved = tuple(0 if n == 1 else s for n, s in zip(shape, own.strides, strict=True))
    return Strides(target, (0,) * lead + moved, own.base)


def common_dims(dims: Sequence[tuple[int, ...]]) -> tuple[int, ...] | None:
    """The coarsest dims that refine all of `dims`, which are splits of one row-major space; None if there are none."""
    cuts: set[int] = set()
    for split in dims:
        inner = 1
        for extent in reversed(split):
            inner *= extent
            cuts.add(inner)
    ordered = sorted(cuts - {1})
    refined, inner = [], 1
    for cut in ordered:
        if cut % inner:
            return None
        refined.append(cut // inner)
        inner = cut
    return tuple(reversed(refined))


@dataclass(frozen=True)
class Nest:
    """Loops, outermost first, and the strides of each tensor over them."""

    extents: tuple[int, ...]
    tensors: tuple[Strides, ...]

    @property
    def size(self) -> int:
        return math.prod(self.extents)


def make_nest(tensors: Sequence[Strides], order_by: int = 0) -> Nest | None:
    """The fewest loops that walk all `tensors`, in the memory order of tensor `order_by`.

    None if their dims have no common split.
    """
    tensors = [tensor.coarsen() for tensor in tensors]
    dims = common_dims([tensor.dims for tensor in tensors])
    refined = [tensor.refine(dims) for tensor in tensors] if dims is not None else [None]
    if any(tensor is None for tensor in refined):
        return None
    loops = [axis for axis, n in enumerate(dims) if n != 1]
    loops.sort(key=lambda axis: -refined[order_by].strides[axis])
    merged: list[tuple[int, list[int]]] = []
    for axis in loops:
        extent, steps = dims[axis], [tensor.strides[axis] for tensor in refined]
        if merged and all(outer == inner * extent for outer, inner in zip(merged[-1][1], steps, strict=True)):
            merged[-1] = (merged[-1][0] * extent, steps)
        else:
            merged.append((extent, steps))
    extents = tuple(extent for extent, _ in merged)
    walks = tuple(
        Strides(extents, tuple(steps[i] for _, steps in merged), tensor.base) for i, tensor in enumerate(refined)
    )
    return Nest(extents, walks)
