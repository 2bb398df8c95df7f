"""Positions of extremes, the best k of a row, and the best boxes that do not overlap."""

from __future__ import annotations

from collections.abc import Sequence

from edgec.backends.tvm._tvm import Expr, T, tirx
from edgec.backends.tvm.builder import Index, bind
from edgec.backends.tvm.generic.loops_code import Variable, loops, loops_over, where
from edgec.backends.tvm.generic.tensor_code import Tensor, unravel
from edgec.graph.ops.arg_max import ArgMax
from edgec.graph.ops.arg_min import ArgMin
from edgec.graph.ops.non_max_suppression import NonMaxSuppression
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


def non_max_suppression(
    op: NonMaxSuppression, inputs: Sequence[Tensor], outputs: Sequence[Tensor | None], row: Index
) -> None:
    """One class of one image: a search for each box that is kept, for the best behind the one before. Nearly all boxes
    are passed by for their score; only what would be the best is compared with those that were kept.
    """
    boxes, scores, iou, lowest = inputs
    (kept,) = outputs
    image, label = unravel(row, scores.shape[:2])
    limit, least = bind(iou.load([])), bind(lowest.load([]))
    last, last_box = Variable(0), Variable(0, DType.I32)
    with loops(op.limit) as (rank,):
        best, found = Variable(0), Variable(-1, DType.I32)
        with where([last_box.value >= 0]), loops(boxes.shape[1]) as (box,):
            score = bind(scores.load([image, label, box]))
            tie = tirx.all(score == last.value, last_box.value < box)
            behind = tirx.any(rank < 1, score < last.value, tie)
            with where([score > least, behind, tirx.any(found.value < 0, score > best.value)]):
                free = Variable(1, DType.I32)
                with loops_over((0, rank)) as (earlier,):
                    other = tirx.Cast("int32", kept.load([image, label, earlier]))
                    with where([_overlap_exceeds(boxes, image, box, bind(other), limit)]):
                        free.set(0)
                with where([free.value > 0]):
                    best.set(score)
                    found.set(box)
        kept.store([image, label, rank], tirx.Cast("int64", found.value))
        last.set(best.value)
        last_box.set(found.value)


def _overlap_exceeds(boxes: Tensor, image: Index, a: Index, b: Index, limit: Expr) -> Expr:
    """Whether two boxes have areas and an intersection over union above `limit`."""
    extents = []  # along each axis: of the intersection, of a, of b
    for axis in (0, 1):
        ends = [bind(boxes.load([image, box, corner])) for box in (a, b) for corner in (axis, axis + 2)]
        (low_a, high_a), (low_b, high_b) = ((T.min(*pair), T.max(*pair)) for pair in (ends[:2], ends[2:]))
        extents.append((T.min(high_a, high_b) - T.max(low_a, low_b), high_a - low_a, high_b - low_b))
    (shared_y, a_y, b_y), (shared_x, a_x, b_x) = extents
    zero = tirx.const(0, "float32")
    shared, area_a, area_b = bind(T.max(shared_y, zero) * T.max(shared_x, zero)), bind(a_y * a_x), bind(b_y * b_x)
    return tirx.all(shared > zero, area_a > zero, area_b > zero, shared / (area_a + area_b - shared) > limit)
