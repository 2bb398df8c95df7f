"""Operators that find some of what is there. How many is known when the program has run: results are `Counted`."""

from __future__ import annotations

import math

import numpy as np

from edgec.frontend.onnx.arguments import normal_axis
from edgec.frontend.onnx.context import Context, Converted, Counted, Known
from edgec.frontend.onnx.model import Node, Unsupported
from edgec.frontend.onnx.ops_indexing import bounded, pick
from edgec.frontend.onnx.ops_logic import cast
from edgec.graph.ir import Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.bit_and import BitAnd
from edgec.graph.ops.cum_sum import CumSum
from edgec.graph.ops.div import Div
from edgec.graph.ops.equal import Equal
from edgec.graph.ops.gather import Gather
from edgec.graph.ops.less import Less
from edgec.graph.ops.mod import Mod
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.non_max_suppression import NonMaxSuppression
from edgec.graph.ops.pad import Pad
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.scatter_elements import ScatterElements
from edgec.graph.ops.slice import Slice
from edgec.graph.ops.sub import Sub
from edgec.graph.ops.where import Where
from edgec.graph.types import DType


def within(ctx: Context, node: Node, extent: int, count: Value, behind: int = 0) -> Value:
    """bool[extent, 1, ...] with `behind` axes of 1: whether a position is less than `count`."""
    bounded(extent)
    positions = np.arange(extent).reshape(-1, *(1,) * behind)
    return ctx.emit(node, Less(), ctx.constant(node, positions), count)


def only_within(ctx: Context, node: Node, x: Counted, fill: float) -> Value:
    """The tensor with `fill` in place of what lies behind its count."""
    inside = within(ctx, node, x.value.type.shape[x.axis], x.count, x.value.type.rank - 1 - x.axis)
    filler = ctx.constant(node, np.array(fill, x.value.type.dtype.numpy))
    return ctx.emit(node, Where(), inside, x.value, filler)


def chosen(ctx: Context, node: Node, kept: Value) -> Counted:
    """The positions, i64 and ascending, where bool[n] `kept` holds."""
    (extent,) = kept.type.shape
    bounded(extent)
    ones = cast(ctx, node, kept, DType.I64)
    before = ctx.emit(node, Sub(), ctx.emit(node, CumSum(0), ones), ctx.number(node, 1, ones))
    # What is not kept goes to one place behind all others, which is cut off.
    place = ctx.emit(node, Where(), kept, before, ctx.number(node, extent, ones))
    room = ctx.constant(node, np.zeros(extent + 1, np.int64))
    placed = ctx.emit(node, ScatterElements(0), room, place, ctx.constant(node, np.arange(extent)))
    count = ctx.emit(node, ReduceSum((0,)), ones)
    return Counted(ctx.emit(node, Slice((0,), (extent,), (1,)), placed), 0, count)


def compacted(ctx: Context, node: Node, x: Value, axis: int, kept: Value) -> Counted:
    """The slices of `x` along `axis` where bool[n] `kept` holds, in order."""
    found = chosen(ctx, node, kept)
    return Counted(ctx.emit(node, Gather(axis), x, found.value), axis, found.count)


def _is_true(ctx: Context, node: Node, index: int) -> Value:
    """Where an input is not 0, and lies before its count."""
    entry = ctx.any_entry(node, index)
    x = only_within(ctx, node, entry, 0) if isinstance(entry, Counted) else ctx.value(node, index)
    if x.type.dtype is DType.BOOL:
        return x
    zero = ctx.emit(node, Equal(), x, ctx.number(node, 0, x))
    return ctx.emit(node, Equal(), zero, ctx.constant(node, np.array(False)))


def _non_zero(ctx: Context, node: Node) -> Converted:
    """The coordinates [rank, n] of what is not 0, in row-major order."""
    mask = _is_true(ctx, node, 0)
    shape = mask.type.shape
    if not shape:
        raise Unsupported("a scalar has no coordinates")
    found = chosen(ctx, node, ctx.emit(node, Reshape((mask.type.size,)), mask))
    rows = []
    for axis, extent in enumerate(shape):
        inner = math.prod(shape[axis + 1 :])
        row = found.value
        row = ctx.emit(node, Div(), row, ctx.number(node, inner, row)) if inner > 1 else row
        row = ctx.emit(node, Mod(), row, ctx.number(node, extent, row)) if axis else row
        rows.append(ctx.emit(node, Reshape((1, mask.type.size)), row))
    return Counted(ctx.writer(node).join(rows, 0), 1, found.count)


def _compress(ctx: Context, node: Node) -> Converted:
    """The slices along `axis`, or the elements, where the condition holds; where it has ended, it does not."""
    entry = ctx.any_entry(node, 0)
    x = entry.value if isinstance(entry, Counted) else ctx.value(node, 0)
    axis = normal_axis(node.get_int("axis"), x.type.rank) if "axis" in node.attributes else None
    if isinstance(entry, Counted) and axis != entry.axis:
        raise Unsupported(f"{entry}, and takes parts of another axis")
    if axis is None:
        x, axis = ctx.emit(node, Reshape((x.type.size,)), x), 0
    condition = ctx.any_entry(node, 1)
    if isinstance(condition, Known) and not isinstance(entry, Counted):
        places = np.flatnonzero(condition.array)
        if not len(places) or places[-1] >= x.type.shape[axis]:
            raise Unsupported("the condition chooses nothing, or more than there is")
        return pick(ctx, node, x, axis, places)
    kept = _is_true(ctx, node, 1)
    missing = x.type.shape[axis] - kept.type.size
    if kept.type.rank != 1 or missing < 0:
        raise Unsupported(f"a condition {list(kept.type.shape)} on {x.type.shape[axis]} slices")
    kept = ctx.emit(node, Pad((0,), (missing,)), kept) if missing else kept
    if isinstance(entry, Counted):
        kept = ctx.emit(node, BitAnd(), kept, within(ctx, node, kept.type.size, entry.count))
    return compacted(ctx, node, x, axis, kept)


def _non_max_suppression(ctx: Context, node: Node) -> Converted:
    """i64[n,3] of image, class and box, by image, by class, by falling score; -1 behind the last."""
    boxes, scores = _boxes(ctx, node), _scores(ctx, node)
    if scores.type.rank != 3:
        raise Unsupported(f"scores of shape {list(scores.type.shape)}; [images, classes, boxes] it must be")
    images, classes, count = scores.type.shape
    most = ctx.entry(node, 2) if ctx.has(node, 2) else Known(np.zeros(1, np.int64))
    if isinstance(most, Known) and most.array.size != 1:
        raise Unsupported(f"{most.array.size} numbers of boxes; one is supported")
    limit = min(max(int(most.array.reshape(())), 0), count) if isinstance(most, Known) else count
    bounded(images * classes * limit * 3)
    if limit == 0:
        return Known(np.zeros((0, 3), np.int64))
    iou = _scalar(ctx, node, 3) if ctx.has(node, 3) else ctx.number(node, 0, scores)
    lowest = _scalar(ctx, node, 4) if ctx.has(node, 4) else ctx.number(node, -math.inf, scores)
    picked = ctx.emit(node, NonMaxSuppression(limit), boxes, scores, iou, lowest)
    rows = images * classes * limit
    numbers = np.stack(np.broadcast_arrays(*np.ogrid[:images, :classes, :limit]), axis=-1)[..., :2]
    labels = ctx.constant(node, numbers.reshape(rows, 2).astype(np.int64))
    table = ctx.writer(node).join([labels, ctx.emit(node, Reshape((rows, 1)), picked)], 1)
    kept = ctx.emit(node, Less(), ctx.number(node, -1, picked), picked)
    if isinstance(most, Value):  # the first boxes are the same, however many are asked for
        kept = ctx.emit(node, BitAnd(), kept, within(ctx, node, limit, _scalar(ctx, node, 2)))
    found = compacted(ctx, node, table, 0, ctx.emit(node, Reshape((rows,)), kept))
    return Counted(only_within(ctx, node, found, -1), 0, found.count)


def _boxes(ctx: Context, node: Node) -> Value:
    """Boxes [N,B,4] as two corners."""
    entry = ctx.any_entry(node, 0)
    boxes = entry.value if isinstance(entry, Counted) else ctx.value(node, 0)
    if boxes.type.rank != 3 or boxes.type.shape[2] != 4:
        raise Unsupported(f"boxes of shape {list(boxes.type.shape)}; [images, boxes, 4] it must be")
    if not node.get_int("center_point_box", 0):
        return boxes
    centre, size = (ctx.emit(node, Slice.along(2, start, start + 2, boxes.type), boxes) for start in (0, 2))
    half = ctx.emit(node, Mul(), size, ctx.number(node, 0.5, size))
    return ctx.writer(node).join([ctx.emit(node, op, centre, half) for op in (Sub(), Add())], 2)


def _scores(ctx: Context, node: Node) -> Value:
    """Scores [N,C,B]; boxes behind a count have none that exceeds a threshold."""
    boxes, scores = ctx.any_entry(node, 0), ctx.any_entry(node, 1)
    if not isinstance(boxes, Counted) and not isinstance(scores, Counted):
        return ctx.value(node, 1)
    if not (isinstance(boxes, Counted) and isinstance(scores, Counted) and boxes.count is scores.count):
        raise Unsupported("boxes and scores have different numbers that depend on data")
    if (boxes.axis, scores.axis) != (1, 2):
        raise Unsupported(f"{boxes if boxes.axis != 1 else scores}: of images or classes")
    return only_within(ctx, node, scores, -math.inf)


def _scalar(ctx: Context, node: Node, index: int) -> Value:
    x = ctx.value(node, index)
    if x.type.size != 1:
        raise Unsupported(f"input {index} has {x.type.size} elements; one is supported")
    return ctx.emit(node, Reshape(()), x) if x.type.shape else x


FOUND = {
    "NonMaxSuppression": _non_max_suppression,
    "NonZero": _non_zero,
    "Compress": _compress,
}
