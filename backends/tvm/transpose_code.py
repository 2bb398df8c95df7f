"""Square blocks of vectors, transposed in registers."""

from __future__ import annotations

from collections.abc import Sequence

from edgec.backends.tvm._tvm import Expr
from edgec.backends.tvm.builder import bind, shuffle


def transpose(rows: Sequence[Expr]) -> list[Expr]:
    """The columns of a square block of vectors: as many rows as lanes, a power of two.

    In steps that are an instruction each, which LLVM does not find for whole columns: blocks of 4 x 4 by interleaving
    twice, then blocks change places, those of 4 x 4, of 8 x 8 and so on.
    """
    count, rows = len(rows), [bind(row) for row in rows]

    def pick(a: Expr, b: Expr, lanes: Sequence[tuple[int, int]]) -> Expr:
        """Lane `lane` of a (0) or b (1) for each (which, lane)."""
        return bind(shuffle([a, b], [which * count + lane for which, lane in lanes]))

    def in_fours(a: Expr, b: Expr, lanes: Sequence[tuple[int, int]]) -> Expr:
        """The same of each four lanes."""
        return pick(a, b, [(which, four + lane) for four in range(0, count, 4) for which, lane in lanes])

    if count == 2:
        return [pick(*rows, [(0, lane), (1, lane)]) for lane in range(2)]
    for four in range(0, count, 4):
        a, b, c, d = rows[four : four + 4]
        low, high = ([(which, lane) for lane in half for which in range(2)] for half in ((0, 1), (2, 3)))
        left, right = ([(which, lane) for which in range(2) for lane in half] for half in ((0, 1), (2, 3)))
        pairs = [(in_fours(a, b, half), in_fours(c, d, half)) for half in (low, high)]
        rows[four : four + 4] = [in_fours(*pair, half) for pair in pairs for half in (left, right)]
    side = 4
    while side < count:
        for i in (row for row in range(count) if not row & side):
            a, b = rows[i], rows[i + side]
            rows[i] = pick(a, b, [(1, n - side) if n & side else (0, n) for n in range(count)])
            rows[i + side] = pick(a, b, [(1, n) if n & side else (0, n + side) for n in range(count)])
        side *= 2
    return rows
