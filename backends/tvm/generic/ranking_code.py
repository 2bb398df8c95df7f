"""Positions of extremes, and the best k of a row."""

from __future__ import annotations

from collections.abc import Sequence

from edgec.backends.tvm._tvm import Expr, tirx
from edgec.backends.tvm.builder import Index, bind
from edgec.backends.tvm.generic.loops_code import Variable, loops, where
from edgec.backends.tvm.generic.tensor_code import Tensor, unravel
from edgec.graph.ops.arg_max import ArgMax
from edgec.graph.ops.arg_min import ArgMin
from edgec.graph.ops.top_k import TopK
from edgec.graph.types import DType


def arg_reduce(op: ArgMax | ArgMin, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    (x,) = inputs
    before, after = list(index[: op.axis]), list(index[op.axis + op.keepdims :])
    best = Variable(x.load([*before, 0, *after]), x.dtype)
    position = Variable(0, DType.I32)
    with loops(x.shape[op.axis]) as (i,):
        value = bind(x.load([*before, i, *after]))
        larger = isinstance(op, ArgMax)
        if op.last:
            better, nan = (value >= best.value if larger else value <= best.value), value != value
        else:
            better = value > best.value if larger else value < best.value
            nan = tirx.all(value != value, best.value == best.value)
        with where([tirx.any(better, nan) if x.dtype.is_float else better]):
            best.set(value)
            position.set(i)
    return (tirx.Cast("int64", position.value),)


def top_k(op: TopK, inputs: Sequence[Tensor], outputs: Sequence[Tensor | None], row: Index) -> None:
    """k searches, each for the best behind the one found before: no memory, and k is small."""
    (x,) = inputs
    values, positions = (*outputs, None)[:2]
    others = unravel(row, x.shape[: op.axis] + x.shape[op.axis + 1 :])
    before, after = others[: op.axis], others[op.axis :]
    last, last_position = Variable(0, x.dtype), Variable(-1, DType.I32)
    with loops(op.k) as (rank,):
        best, position = Variable(0, x.dtype), Variable(-1, DType.I32)
        with loops(x.shape[op.axis]) as (i,):
            value = bind(x.load([*before, i, *after]))
            behind = value < last.value if op.largest else value > last.value
            tie = tirx.all(value == last.value, last_position.value < i)
            better = value > best.value if op.largest else value < best.value
            with where([tirx.any(last_position.value < 0, behind, tie), tirx.any(position.value < 0, better)]):
                best.set(value)
                position.set(i)
        if values is not None:
            values.store([*before, rank, *after], best.value)
        if positions is not None:
            found = tirx.Max(position.value, tirx.const(0, "int32"))
            positions.store([*before, rank, *after], tirx.Cast("int64", found))
        last.set(best.value)
        last_position.set(position.value)
