"""Code of a `MapSpec`: rows shared out to tasks, in each the innermost loop in vectors, or in transposed tiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from edgec.backends.base import Target
from edgec.backends.tvm._tvm import Expr, PrimFunc, T, tirx
from edgec.backends.tvm.builder import (
    MEMORY_DTYPE,
    Index,
    Pointer,
    broadcast,
    build_kernel,
    cast,
    constant,
    fill_value,
    number,
    serial,
    split_width,
)
from edgec.backends.tvm.computation import Computed
from edgec.backends.tvm.conversions import narrow, widen
from edgec.backends.tvm.expressions import evaluate
from edgec.backends.tvm.generic.tensor_code import unravel
from edgec.backends.tvm.maps import MapSpec, Region, Slot
from edgec.backends.tvm.transpose_code import transpose
from edgec.graph.types import DType

_UNROLLED = 4  # vectors of a row that are written out rather than looped over


def emit_map(spec: MapSpec, target: Target) -> PrimFunc:
    def body(*parameters: Pointer | Expr) -> None:
        *pointers, lo, hi = parameters
        with serial(lo, hi) as task:
            for region in spec.regions:
                _Emitter(spec, region, pointers, target).emit(task)

    return build_kernel(spec.arguments, body)


class _Emitter:
    """One region. A tensor's offset is its base plus the sum of index times stride, kept per slot."""

    def __init__(self, spec: MapSpec, region: Region, pointers: Sequence[Pointer], target: Target):
        self.spec, self.region, self.lanes = spec, region, target.lanes
        self.pointers = [pointers[argument] for argument in region.arguments]
        self.dtypes = [spec.arguments[argument].dtype for argument in region.arguments]
        self.extents = region.nest.extents or (1,)
        self.strides = [tensor.strides or (0,) for tensor in region.nest.tensors]
        self.bases = [tensor.base for tensor in region.nest.tensors]

    def emit(self, task: Index) -> None:
        self.task = task
        across = self._across()
        inner = len(self.extents) - 1
        if across is None:
            self._rows(task, self.extents[:-1], lambda index: self._row(dict(enumerate(index))))
            return
        # Strips of `side` along loop `across`, which is contiguous in the source, by `side` along the innermost.
        axes = [axis for axis in range(inner) if axis != across]
        side = self._side(across)
        strips, rest = divmod(self.extents[across], side)
        counts = [self.extents[axis] for axis in axes]
        self._rows(
            task,
            (*counts, strips),
            lambda index: self._strip(dict(zip(axes, index, strict=False)), across, index[-1] * side, side),
        )
        if rest:
            start = strips * side
            self._rows(
                task,
                (*counts, rest),
                lambda index: self._row(dict(zip(axes, index, strict=False)) | {across: index[-1] + start}),
            )

    def _rows(self, task: Index, counts: Sequence[int], row: Callable[[list[Index]], None]) -> None:
        """`row(index)` for the rows of this task."""
        total = math.prod(counts)
        if self.spec.tasks == 1:
            self._nest(counts, [], row)
            return
        share = -(-total // self.spec.tasks)
        with serial(task * share, T.min(task * share + share, total)) as position:
            row(unravel(position, counts))

    def _nest(self, counts: Sequence[int], index: list[Index], row: Callable[[list[Index]], None]) -> None:
        if len(index) == len(counts):
            row(index)
            return
        with serial(0, counts[len(index)]) as i:
            self._nest(counts, [*index, i], row)

    def _row(self, index: dict[int, Index]) -> None:
        """The innermost loop, at `index` of the others."""
        inner = len(self.extents) - 1
        n = self.extents[inner]
        if any(strides[inner] not in (0, 1) for strides in self.strides):
            with serial(0, n) as i:
                self._elements(self._offsets(index | {inner: i}), 1)
            return
        offsets = self._offsets(index)
        # The only row is run once: written out it would be no faster.
        full = n // self.lanes if n // self.lanes > (_UNROLLED if inner else 1) else 0
        if full:
            with serial(0, full) as vector:
                self._elements(self._advance(offsets, vector * self.lanes), self.lanes)
        for start, lanes in split_width(n - full * self.lanes, self.lanes):
            self._elements(self._advance(offsets, full * self.lanes + start), lanes)

    def _advance(self, offsets: list[Index], i: Index) -> list[Index]:
        """Offsets `i` elements further along the innermost loop."""
        return [
            offset + i * strides[-1] if strides[-1] else offset
            for offset, strides in zip(offsets, self.strides, strict=True)
        ]

    def _offsets(self, index: dict[int, Index]) -> list[Index]:
        offsets = []
        for base, strides in zip(self.bases, self.strides, strict=True):
            offset: Index = base
            for axis, i in index.items():
                if strides[axis]:
                    offset = offset + i * strides[axis]
            offsets.append(offset)
        return offsets

    def _elements(self, offsets: Sequence[Index], lanes: int, loaded: dict[int, Expr] | None = None) -> None:
        """`lanes` elements of every result, with slots that are `loaded` already."""
        values = dict(loaded or {})

        def value(operand: Slot | Computed) -> Expr:
            if isinstance(operand, Computed):
                return done[operand.step][operand.output]
            if operand.index not in values:
                values[operand.index] = self._load(operand.index, offsets[operand.index], lanes)
            return values[operand.index]

        done: list[tuple[Expr, ...]] = []
        for step in self.spec.steps:
            done.append(evaluate(step.op, [value(operand) for operand in step.operands]))
        # All reads come before the first store: a result may share the memory of an operand.
        for stored, slot in [(value(source), slot) for source, slot in self.spec.stores]:
            self.pointers[slot.index].store(offsets[slot.index], self._stored(broadcast(stored, lanes), slot.index))

    def _load(self, slot: int, offset: Index, lanes: int) -> Expr:
        if self.region.fill is not None and slot == self._source:
            return self._fill(self.dtypes[slot], lanes)
        moves = self.strides[slot][-1] == 1
        return broadcast(self._computable(self.pointers[slot].load(offset, lanes if moves else 1), slot), lanes)

    def _computable(self, loaded: Expr, slot: int) -> Expr:
        """What is only moved stays as memory holds it."""
        return widen(loaded, self.dtypes[slot]) if self.spec.steps else loaded

    def _stored(self, value: Expr, slot: int) -> Expr:
        return narrow(value, self.dtypes[slot]) if self.spec.steps else value

    def _fill(self, dtype: DType, lanes: int) -> Expr:
        """The region's constant, so that LLVM cannot make a call of memset of it (see `fill_value`)."""
        if dtype is DType.F32 or (self.spec.steps and dtype.is_float):
            return constant(self.region.fill, lanes) + fill_value(self.task, lanes)
        kind = MEMORY_DTYPE[dtype]
        if dtype.is_float:
            value = tirx.const(int(np.array(self.region.fill, dtype.numpy).view(np.uint16)), kind)
        else:
            value = number(self.region.fill, dtype)
        return broadcast(value + cast(self.task >> 31, kind), lanes)

    # -- transposing ---------------------------------------------------------------------------------------------------

    @property
    def _source(self) -> int:
        """The slot that data is moved from; in elementwise kernels just another tensor."""
        return len({slot for _, slot in self.spec.stores})

    def _across(self) -> int | None:
        """The loop along which the source is contiguous, if that is not the innermost one, and tiles are worth it."""
        inner = len(self.extents) - 1
        if self._source >= len(self.strides) or self._source_is_regular(inner):
            return None
        others = [s for slot, s in enumerate(self.strides) if slot != self._source]
        if any(strides[inner] not in (0, 1) for strides in others):
            return None
        candidates = [axis for axis in range(inner) if self.strides[self._source][axis] == 1]
        return candidates[0] if candidates and self._side(candidates[0]) > 1 else None

    def _source_is_regular(self, inner: int) -> bool:
        return self.strides[self._source][inner] in (0, 1)

    def _side(self, across: int) -> int:
        """Side of the square tiles: a power of two."""
        side = self.lanes
        while side > min(self.extents[across], self.extents[-1]):
            side //= 2
        return side

    def _strip(self, index: dict[int, Index], across: int, start: Index, side: int) -> None:
        """Tiles of side x side along the innermost loop; what is left of it element by element."""
        inner = len(self.extents) - 1
        tiles, rest = divmod(self.extents[inner], side)
        source, along = self._source, self.strides[self._source][inner]
        with serial(0, tiles) as tile:
            corner = self._offsets(index | {across: start, inner: tile * side})
            rows = [
                self._computable(self.pointers[source].load(corner[source] + r * along, side), source)
                for r in range(side)
            ]
            for column, vector in enumerate(transpose(rows)):
                offsets = self._offsets(index | {across: start + column, inner: tile * side})
                self._elements(offsets, side, {source: vector})
        if rest:
            with serial(0, rest) as i, serial(0, side) as column:
                self._elements(self._offsets(index | {across: start + column, inner: tiles * side + i}), 1)
