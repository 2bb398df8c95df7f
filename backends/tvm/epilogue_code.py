"""Code of an `Epilogue`: evaluated for one vector of results at a time, on values that are still in registers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgec.backends.tvm._tvm import Expr
from edgec.backends.tvm.builder import Index, Pointer, broadcast, displaced, lanes_of, local, serial
from edgec.backends.tvm.conversions import narrow
from edgec.backends.tvm.epilogue import Accumulator, Broadcast, Epilogue, Full, Reference, Result
from edgec.backends.tvm.expressions import evaluate


@dataclass(frozen=True)
class Place:
    """Where a vector of results stands: offset of its first element in memory, and row and column in the matrix
    view.
    """

    offset: Index
    row: Index
    column: Index


def finish(epilogue: Epilogue, pointers: Sequence[Pointer], result: Expr, place: Place) -> None:
    """Run the steps on a vector of `result` (consecutive columns of one row) and store what is to be stored.

    `pointers` are those of `epilogue.arguments`.
    """
    lanes, offset = lanes_of(result), displaced(place.offset)
    done: list[tuple[Expr, ...]] = []

    def value(reference: Reference) -> Expr:
        match reference:
            case Accumulator():
                return result
            case Result(step, output):
                return done[step][output]
            case Full(argument):
                return pointers[argument].load(offset, lanes)
            case Broadcast(argument, column_stride, rows):
                index = place.column if column_stride else 0
                for part in rows:
                    row = place.row if part.rows == 1 else place.row // part.rows
                    index = index + (row % part.period if part.period else row) * part.stride
                return broadcast(pointers[argument].load(index, lanes if column_stride else 1), lanes)

    for step in epilogue.steps:
        done.append(evaluate(step.op, [value(operand) for operand in step.operands]))
    # All reads come before the first store: a stored argument may be one that is read.
    for reference, argument in [(value(store.value), store.argument) for store in epilogue.stores]:
        pointers[argument].store(offset, narrow(reference, epilogue.arguments[argument].dtype))


def each_row(
    epilogue: Epilogue,
    sums: Pointer,
    rows: int,
    vectors: Sequence[tuple[int, int]],
    store: Callable[[Index, Pointer], None],
) -> None:
    """`store(row, sums)` for every row of a register tile, whose rows are `vectors` (start, lanes).

    Unrolled; but with long steps in a loop on a copy, since sums stay in registers only while all their indices are
    constants.
    """
    if not epilogue.is_long:
        for row in range(rows):
            store(row, sums)
        return
    width = sum(lanes for _, lanes in vectors)
    waiting = local(rows * width)
    for row in range(rows):
        for start, lanes in vectors:
            waiting.store(row * width + start, sums.load(row * width + start, lanes))
    with serial(0, rows) as row:
        store(row, waiting)
