"""Sums over the rows of a block that the nearest caches hold, some vectors of columns at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgec.backends.tvm._tvm import Expr, T
from edgec.backends.tvm.builder import Index, Pointer, bind, constant, local, serial

Pieces = Sequence[tuple[int, int]]  # vectors of a block of columns: the first column, lanes
Term = Callable[[Index, int], Expr]  # (row, number of the vector)

_COPIES = 4  # sums side by side, enough to hide the latency of an addition behind loads
_CHAIN = 64  # additions of one chain; of more rows, in totals of chains: rounding grows with the length of a chain


class Sums:
    """Vectors of the given widths, to which `loop` adds. Chains become totals in a loop around a loop, so that what is
    added is code once.
    """

    def __init__(self, widths: Sequence[int], zero: Expr):
        """zero: see `opaque_zero`."""
        self._widths, self._zero = widths, zero
        self._cells, self._totals = self._cleared(), None

    def add(self, cell: int, value: Expr) -> None:
        cell_, lanes = self._cells[cell], self._widths[cell]
        cell_.store(0, cell_.load(0, lanes) + value)

    def loop(self, count: Index, most: int, body: Callable[[Index], None]) -> None:
        """`body(i)` for all i below `count`, which is at most `most`; each adds once to each sum, or a few times."""
        if most <= _CHAIN:
            with serial(0, count + self._zero) as i:
                body(i)
            return
        self._totals = self._totals or self._cleared()
        with serial(0, (count + (_CHAIN - 1)) // _CHAIN + self._zero) as chain:
            with serial(chain * _CHAIN, T.min(chain * _CHAIN + _CHAIN, count)) as i:
                body(i)
            for total, cell, lanes in zip(self._totals, self._cells, self._widths, strict=True):
                total.store(0, total.load(0, lanes) + cell.load(0, lanes))
                cell.store(0, constant(0.0, lanes))

    def results(self) -> list[Expr]:
        """One for each width; nothing is added after that."""
        cells = [bind(cell.load(0, lanes)) for cell, lanes in zip(self._cells, self._widths, strict=True)]
        if self._totals is None:
            return cells
        totals = zip(self._totals, cells, self._widths, strict=True)
        return [bind(total.load(0, lanes) + cell) for total, cell, lanes in totals]

    def _cleared(self) -> list[Pointer]:
        cells = [local(lanes) for lanes in self._widths]
        for cell, lanes in zip(cells, self._widths, strict=True):
            cell.store(0, constant(0.0, lanes))
        return cells


def row_sums(rows: Index, most: int, pieces: Pieces, terms: Sequence[Term], zero: Expr) -> list[list[Expr]]:
    """For each term, its sums over `rows` rows, at most `most`: a vector for each piece. zero: see `opaque_zero`."""
    cells = [lanes for _ in terms for _, lanes in pieces]
    copies = max(1, _COPIES // len(cells))  # of each sum, for neighbouring rows
    sums = Sums(cells * copies, zero)

    def add(row: Index, copy: int) -> None:
        for number, term in enumerate(terms):
            for piece in range(len(pieces)):
                sums.add((copy * len(terms) + number) * len(pieces) + piece, term(row, piece))

    def add_group(group: Index) -> None:
        for copy in range(copies):
            add(group * copies + copy, copy)

    sums.loop(rows // copies, most // copies, add_group)
    if copies > 1:
        with serial(0, rows % copies) as row:
            add(rows // copies * copies + row, 0)
    results = sums.results()
    totals = [results[at : at + len(cells)] for at in range(0, len(results), len(cells))]
    added = [bind(sum(of[1:], of[0])) for of in zip(*totals, strict=True)]
    return [added[at : at + len(pieces)] for at in range(0, len(cells), len(pieces))]
