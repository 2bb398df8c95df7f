"""Code of a `ReduceSpec`: accumulators in registers, added to in the operand's memory order."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from edgec.backends.base import Target
from edgec.backends.tvm._tvm import Expr, PrimFunc, T
from edgec.backends.tvm.builder import (
    Index,
    Pointer,
    bind,
    broadcast,
    build_kernel,
    constant,
    lanes_of,
    larger,
    local,
    opaque_zero,
    select,
    serial,
    smaller,
    split_width,
)
from edgec.backends.tvm.computation import Computed
from edgec.backends.tvm.expressions import evaluate
from edgec.backends.tvm.functions import squared
from edgec.backends.tvm.generic.tensor_code import unravel
from edgec.backends.tvm.lanes_code import fold_lanes
from edgec.backends.tvm.maps import Slot
from edgec.backends.tvm.reductions import BLOCK_VECTORS, Fold, ReduceSpec, Term
from edgec.backends.tvm.tiling import column_block

# Vectors that are added up in one chain, which then joins a total: rounding grows with the length of a chain, and the
# mean of thousands of positions, as in squeeze-and-excite, stands at the head of all that follows.
_CHAIN = 32


def emit_reduction(spec: ReduceSpec, target: Target) -> PrimFunc:
    def body(*parameters: Pointer | Expr) -> None:
        *pointers, lo, hi = parameters
        with serial(lo, hi) as task:
            _Emitter(spec, pointers, target, opaque_zero(lo)).emit(task)

    return build_kernel(spec.arguments, body)


class Accumulators:
    """Running results in registers, vectors of the given widths. Long sums are made of chains and their totals."""

    def __init__(
        self,
        widths: Sequence[int],
        initial: float,
        combine: Callable[[Expr, Expr], Expr],
        zero: Expr,
        *,
        long: bool = False,
    ):
        """zero: see `opaque_zero`."""
        self._widths, self._initial, self._combine, self._zero = widths, initial, combine, zero
        self._cells = self._cleared()
        self._totals = self._cleared() if long else None

    @property
    def count(self) -> int:
        return len(self._widths)

    def add(self, cell: int, value: Expr) -> None:
        self._fold(self._cells[cell], value)

    def loop(self, n: Index, body: Callable[[Index], None]) -> None:
        """`body(i)` for i in 0..n-1: a loop in the code, or one of chains."""
        if self._totals is None:
            with self._turns(n) as i:
                body(i)
            return
        chains, rest = n // _CHAIN, n % _CHAIN
        if not _is_none(chains):
            with self._turns(chains) as chain:
                with self._turns(_CHAIN) as i:
                    body(chain * _CHAIN + i)
                self._join()
        if not _is_none(rest):
            with self._turns(rest) as i:
                body(chains * _CHAIN + i)
            self._join()

    def _turns(self, n: Index) -> AbstractContextManager[Index]:
        """A loop that stays one: LLVM would unroll some tens of turns, each of a few additions that wait for memory."""
        return serial(0, n if isinstance(n, int) and n == 1 else n + self._zero)

    def results(self) -> list[Pointer]:
        """One for each width; nothing is added after that."""
        if self._totals is None:
            return self._cells
        self._join()
        return self._totals

    @staticmethod
    def of_sums(widths: Sequence[int], steps: int, zero: Expr) -> Accumulators:
        """Sums of up to `steps` vectors each."""
        return Accumulators(widths, 0.0, operator.add, zero, long=steps > _CHAIN)

    def _cleared(self) -> list[Pointer]:
        cells = [local(lanes) for lanes in self._widths]
        self._clear(cells)
        return cells

    def _clear(self, cells: Sequence[Pointer]) -> None:
        for cell, lanes in zip(cells, self._widths, strict=True):
            cell.store(0, constant(self._initial, lanes))

    def _fold(self, cell: Pointer, value: Expr) -> None:
        cell.store(0, self._combine(cell.load(0, value.ty.dtype.lanes), value))

    def _join(self) -> None:
        for total, cell, lanes in zip(self._totals, self._cells, self._widths, strict=True):
            self._fold(total, cell.load(0, lanes))
        self._clear(self._cells)


def _is_none(n: Index) -> bool:
    return isinstance(n, int) and n == 0


class _Emitter:
    def __init__(self, spec: ReduceSpec, pointers: Sequence[Pointer], target: Target, opaque_zero: Expr):
        self.spec, self.target, self.lanes, self.opaque_zero = spec, target, target.lanes, opaque_zero
        self.pointers = [pointers[argument] for argument in spec.slots]
        self.extents = spec.nest.extents
        self.tensors = spec.nest.tensors
        self.inner = len(self.extents) - 1

    def emit(self, task: Index) -> None:
        outer = [axis for axis in self.spec.kept if axis != self.inner]
        counts = [self.extents[axis] for axis in outer]
        if not self.spec.inner_is_kept:
            self._units(task, counts, lambda index: self._along(dict(zip(outer, index, strict=True))))
            return
        block = column_block(self.extents[-1], self.target, BLOCK_VECTORS)
        blocks, rest = divmod(self.extents[-1], block)
        if blocks:
            self._units(
                task,
                [*counts, blocks],
                lambda index: self._block(dict(zip(outer, index, strict=False)), index[-1] * block, block),
            )
        if rest:
            start = blocks * block
            self._units(task, counts, lambda index: self._block(dict(zip(outer, index, strict=True)), start, rest))

    def _units(self, task: Index, counts: Sequence[int], unit: Callable[[list[Index]], None]) -> None:
        """`unit(index)` for this task's share."""
        total = math.prod(counts)
        share = -(-total // self.spec.tasks)
        stop = T.min(task * share + share, total) if self.spec.tasks > 1 else total
        with serial(task * share if self.spec.tasks > 1 else 0, stop) as position:
            unit(unravel(position, counts))

    def _offset(self, slot: int, index: dict[int, Index]) -> Index:
        tensor = self.tensors[slot]
        offset: Index = tensor.base
        for axis, i in index.items():
            if tensor.strides[axis]:
                offset = offset + i * tensor.strides[axis]
        return offset

    # -- kept elements side by side

    def _block(self, index: dict[int, Index], start: Index, width: int) -> None:
        """`width` neighbouring results: a vector accumulator for each piece, of several rows where pieces are few."""
        pieces = split_width(width, self.lanes)
        *outer, last = self.spec.reduced
        rows = min(max(1, BLOCK_VECTORS // len(pieces)), self.extents[last])
        groups, rest = divmod(self.extents[last], rows)
        sums = self._accumulators([lanes for _, lanes in pieces] * rows, groups)

        def add(row: int, position: dict[int, Index]) -> None:
            offsets = self._offsets(position)
            for cell, (piece, lanes) in enumerate(pieces, row * len(pieces)):
                self._add_terms(sums, cell, offsets, start + piece, lanes)

        def rows_of(position: dict[int, Index]) -> None:
            def add_group(group: Index) -> None:
                for row in range(rows):
                    add(row, position | {last: group * rows + row})

            sums.loop(groups, add_group)
            for row in range(rest):
                add(row, position | {last: groups * rows + row})

        self._loops(outer, index, rows_of)
        results = self._by_term(sums.results())
        for first, (piece, lanes) in enumerate(pieces):
            totals = []
            for cells in results:
                total, *others = cells[first :: len(pieces)]
                for other in others:
                    total.store(0, self._combine(total.load(0, lanes), other.load(0, lanes)))
                totals.append(total.load(0, lanes))
            self._finish(totals, index, start + piece)

    # -- reduced elements side by side

    def _along(self, index: dict[int, Index]) -> None:
        """One result: vectors along the innermost loop, then their lanes pairwise."""
        *outer, last = self.spec.reduced
        n = self.extents[last]
        count = max(1, min(BLOCK_VECTORS, n // self.lanes))
        step = count * self.lanes
        full = n // step if n >= step else 0
        tail = split_width(n - full * step, self.lanes)
        pieces = ([(i * self.lanes, self.lanes) for i in range(count)] if full else []) + [
            (0, lanes) for _, lanes in tail
        ]
        sums = self._accumulators([lanes for _, lanes in pieces], full)

        def row(position: dict[int, Index]) -> None:
            offsets = self._offsets(position)

            def add_step(i: Index) -> None:
                for cell, (start, lanes) in enumerate(pieces[:count]):
                    self._add_terms(sums, cell, offsets, i * step + start, lanes)

            if full:
                sums.loop(full, add_step)
            for cell, (start, lanes) in enumerate(tail, count if full else 0):
                self._add_terms(sums, cell, offsets, full * step + start, lanes)

        self._loops(outer, index, row)
        totals = []
        for cells in self._by_term(sums.results()):
            by_width: dict[int, Pointer] = {}
            for cell, (_, lanes) in zip(cells, pieces, strict=True):
                if lanes in by_width:
                    by_width[lanes].store(0, self._combine(by_width[lanes].load(0, lanes), cell.load(0, lanes)))
                else:
                    by_width[lanes] = cell
            totals.append(fold_lanes(by_width, self._combine))
        self._finish(totals, index, 0)

    def _loops(self, axes: Sequence[int], index: dict[int, Index], inside: Callable[[dict[int, Index]], None]) -> None:
        if not axes:
            inside(index)
            return
        with serial(0, self.extents[axes[0]]) as i:
            self._loops(axes[1:], index | {axes[0]: i}, inside)

    # -- values

    def _offsets(self, position: dict[int, Index]) -> list[Index]:
        return [self._offset(slot, position) for slot in range(self.spec.reads)]

    def _add_terms(self, sums: Accumulators, cell: int, offsets: Sequence[Index], column: Index, lanes: int) -> None:
        """Add every term of `lanes` neighbours along the innermost loop; each has as many cells."""

        def load(slot: int) -> Expr:
            if self.tensors[slot].strides[self.inner] == 1:
                return self.pointers[slot].load(offsets[slot] + column, lanes)
            return broadcast(self.pointers[slot].load(offsets[slot]), lanes)

        for number, term in enumerate(self.spec.terms):
            sums.add(number * (sums.count // len(self.spec.terms)) + cell, _value(term, load))

    def _by_term(self, cells: Sequence[Pointer]) -> list[Sequence[Pointer]]:
        share = len(cells) // len(self.spec.terms)
        return [cells[start : start + share] for start in range(0, len(cells), share)]

    def _accumulators(self, widths: Sequence[int], steps: int) -> Accumulators:
        """For a loop of `steps`: cells of these widths for each term."""
        cells = [*widths] * len(self.spec.terms)
        if self.spec.fold is Fold.SUM:
            return Accumulators.of_sums(cells, steps, self.opaque_zero)
        return Accumulators(
            cells, {Fold.MAX: -math.inf, Fold.MIN: math.inf}[self.spec.fold], self._combine, self.opaque_zero
        )

    def _combine(self, total: Expr, x: Expr) -> Expr:
        match self.spec.fold:
            case Fold.SUM:
                return total + x
            case Fold.MAX:
                return larger(total, x)
            case Fold.MIN:
                return smaller(total, x)

    def _finish(self, totals: Sequence[Expr], index: dict[int, Index], column: Index) -> None:
        """Divide, run the steps and store. `column`: place along the innermost loop, if that is kept."""
        lanes = totals[0].ty.dtype.lanes
        if self.spec.divisor != 1:
            totals = [total / constant(float(self.spec.divisor), lanes) for total in totals]
        done: list[tuple[Expr, ...]] = [(bind(total),) for total in totals]
        place = index | {self.inner: column} if self.spec.inner_is_kept else index

        def value(operand: Slot | Computed) -> Expr:
            if isinstance(operand, Computed):
                return done[operand.step][operand.output]
            moves = self.spec.inner_is_kept and self.tensors[operand.index].strides[self.inner] == 1
            loaded = self.pointers[operand.index].load(self._offset(operand.index, place), lanes if moves else 1)
            return broadcast(loaded, lanes)

        for step in self.spec.steps:
            done.append(evaluate(step.op, [value(operand) for operand in step.operands]))
        for stored, slot in [(value(source), slot) for source, slot in self.spec.stores]:
            self.pointers[slot.index].store(self._offset(slot.index, place), stored)


def _value(term: Term, load: Callable[[int], Expr]) -> Expr:
    """What is folded, of vectors of the operands."""
    match term:
        case Term.VALUE:
            return load(0)
        case Term.SECOND:
            return load(1)
        case Term.WEIGHTED:
            return load(0) * load(1)
        case Term.CENTRED_SQUARE:
            return squared(load(0) - load(1))
        case Term.WEIGHTED_SQUARE:
            # What weighs nothing may be so large that its square is infinite.
            weight = bind(load(2))
            zero = constant(0.0, lanes_of(weight))
            return select(weight == zero, zero, squared(load(0) - load(1)) * weight)
        case Term.NORMAL_PRODUCT:
            return load(0) * ((load(1) - load(2)) * load(3))
