"""Vectors along a run of elements, and what their lanes come to: for reductions, softmax and losses."""

from __future__ import annotations

from collections.abc import Callable

from edgec.backends.tvm._tvm import Expr
from edgec.backends.tvm.builder import Index, Pointer, constant, local, serial, split_width

Combine = Callable[[Expr, Expr], Expr]


def walk(n: int, lanes: int, body: Callable[[Index, int], None]) -> None:
    """`body(start, lanes)` for vectors that cover 0..n-1: a loop over full ones, then the rest in falling widths."""
    full = n // lanes
    if full:
        with serial(0, full) as i:
            body(i * lanes, lanes)
    for start, width in split_width(n - full * lanes, lanes):
        body(full * lanes + start, width)


class LaneFold:
    """A running reduction with one accumulator for each width of vector that `walk` uses."""

    def __init__(self, n: int, lanes: int, initial: float, combine: Combine):
        widths = ([lanes] if n >= lanes else []) + [width for _, width in split_width(n % lanes, lanes)]
        self._cells = {width: local(width) for width in widths}
        self._combine = combine
        for width, cell in self._cells.items():
            cell.store(0, constant(initial, width))

    def add(self, value: Expr, lanes: int) -> None:
        cell = self._cells[lanes]
        cell.store(0, self._combine(cell.load(0, lanes), value))

    def result(self) -> Expr:
        return fold_lanes(self._cells, self._combine)


def fold_lanes(by_width: dict[int, Pointer], combine: Combine) -> Expr:
    """All lanes of vectors of several widths as one: halves are combined, and narrower vectors join on the way.

    Through memory, which LLVM removes: TVM would expand bound values into a tree.
    """
    lanes = max(by_width)
    total = by_width[lanes]
    while lanes > 1:
        lanes //= 2
        half = local(lanes)
        half.store(0, combine(total.load(0, lanes), total.load(lanes, lanes)))
        if lanes in by_width:
            half.store(0, combine(half.load(0, lanes), by_width[lanes].load(0, lanes)))
        total = half
    return total.load(0)
