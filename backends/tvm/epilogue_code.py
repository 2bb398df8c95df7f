"""Code of an `Epilogue`: evaluated for one vector of results at a time, on values that are still in registers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgec.backends.tvm._tvm import Expr
from edgec.backends.tvm.builder import Index, Pointer, broadcast, lanes_of
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
    lanes = lanes_of(result)
    done: list[tuple[Expr, ...]] = []

    def value(reference: Reference) -> Expr:
        match reference:
            case Accumulator():
                return result
            case Result(step, output):
                return done[step][output]
            case Full(argument):
                return pointers[argument].load(place.offset, lanes)
            case Broadcast(argument, column_stride, row_stride, rows):
                row = place.row if rows == 1 else place.row // rows
                index = (row * row_stride if row_stride else 0) + (place.column if column_stride else 0)
                return broadcast(pointers[argument].load(index, lanes if column_stride else 1), lanes)

    for step in epilogue.steps:
        done.append(evaluate(step.op, [value(operand) for operand in step.operands]))
    # All reads come before the first store: a stored argument may be one that is read.
    for reference, argument in [(value(store.value), store.argument) for store in epilogue.stores]:
        pointers[argument].store(place.offset, narrow(reference, epilogue.arguments[argument].dtype))
