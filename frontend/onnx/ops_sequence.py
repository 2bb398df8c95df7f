"""Sequences and optional values: lists of known length, which exist while a model is imported and vanish with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from edgec.frontend.onnx.arguments import normal_axis, split_sizes
from edgec.frontend.onnx.context import NOTHING, Context, Converted, Entry, Known, Listed
from edgec.frontend.onnx.model import Node, Unsupported
from edgec.frontend.onnx.ops_movement import joined, pieces
from edgec.graph.ops.reshape import Reshape

MAX_ITEMS = 4096

Item = TypeVar("Item")


def _construct(ctx: Context, node: Node) -> Converted:
    return Listed(tuple(ctx.entry(node, index) for index in range(len(node.inputs))))


def _empty(ctx: Context, node: Node) -> Converted:
    return Listed(())


def _split_to_sequence(ctx: Context, node: Node) -> Converted:
    """The pieces of x along an axis: of one size (the last may be smaller), of given sizes, or of 1 without it."""
    kind = ctx.type(node, 0)
    axis = normal_axis(node.get_int("axis", 0), kind.rank)
    sizes = _piece_sizes(ctx, node, kind.shape[axis])
    keeps = ctx.has(node, 1) or node.get_int("keepdims", 1)
    shapes = [kind.shape[:axis] + ((size,) if keeps else ()) + kind.shape[axis + 1 :] for size in sizes]
    if ctx.all_known(node):
        array, ends = ctx.known(node, 0, "the tensor"), np.cumsum(sizes)
        arrays = np.split(array, ends[:-1], axis) if sizes else []
        return Listed(tuple(Known(array.reshape(shape)) for array, shape in zip(arrays, shapes, strict=True)))
    items = pieces(ctx, node, ctx.value(node, 0), axis, sizes)
    if not keeps:
        items = [ctx.emit(node, Reshape(shape), item) for item, shape in zip(items, shapes, strict=True)]
    return Listed(tuple(items))


def _piece_sizes(ctx: Context, node: Node, extent: int) -> tuple[int, ...]:
    size = 1
    if ctx.has(node, 1):
        sizes = ctx.known_ints(node, 1, "the list of sizes")
        if ctx.type(node, 1).rank:
            return _bounded(split_sizes(extent, len(sizes), sizes))
        (size,) = sizes
    if size < 1:
        raise Unsupported(f"pieces of {size} elements")
    return _bounded([min(size, extent - start) for start in range(0, extent, size)[: MAX_ITEMS + 1]])


def _bounded(items: Sequence[Item]) -> tuple[Item, ...]:
    if len(items) > MAX_ITEMS:
        raise Unsupported(f"a sequence of more than {MAX_ITEMS} tensors")
    return tuple(items)


def _at(ctx: Context, node: Node) -> Converted:
    items = ctx.listed(node, 0)
    return items[_position(ctx, node, 1, len(items), len(items))]


def _length(ctx: Context, node: Node) -> Converted:
    return Known(np.array(len(ctx.listed(node, 0)), np.int64))


def _insert(ctx: Context, node: Node) -> Converted:
    items = list(ctx.listed(node, 0))
    count = len(items)
    place = _position(ctx, node, 2, count, count + 1) if ctx.has(node, 2) else count
    items.insert(place, ctx.entry(node, 1))
    return Listed(_bounded(items))


def _erase(ctx: Context, node: Node) -> Converted:
    items = ctx.listed(node, 0)
    place = _position(ctx, node, 1, len(items), len(items)) if ctx.has(node, 1) else len(items) - 1
    return Listed((*items[:place], *items[place + 1 :]))


def _position(ctx: Context, node: Node, index: int, count: int, end: int) -> int:
    """The position before `end` that input `index` gives for `count` items; negative ones count from the back."""
    given = int(ctx.known_scalar(node, index, "the position in the sequence"))
    place = given if given >= 0 else given + count
    if not 0 <= place < end:
        raise Unsupported(f"position {given} is outside of the sequence")
    return place


def _concatenate(ctx: Context, node: Node) -> Converted:
    given = ctx.listed(node, 0)
    if not given:
        raise Unsupported("joins a sequence without tensors")
    axis, stacked = node.get_int("axis"), node.get_int("new_axis", 0)
    if all(isinstance(entry, Known) and entry.foldable for entry in given):
        ctx.count_folded(sum(entry.array.size for entry in given))
        if ctx.foldable_elements < 0:
            raise Unsupported("the constants of the model are too large")
        try:
            return Known((np.stack if stacked else np.concatenate)([entry.array for entry in given], axis))
        except ValueError as error:  # the model fixes them, so numpy may judge them
            raise Unsupported(f"its constant inputs do not fit: {error}") from None
    items = [ctx.tensor(entry, f"{node.outputs[0]}.{place}") for place, entry in enumerate(given)]
    if not stacked:
        return joined(ctx, node, items, normal_axis(axis, items[0].type.rank))
    axis = normal_axis(axis, items[0].type.rank + 1)
    grown = [ctx.emit(node, Reshape((*x.type.shape[:axis], 1, *x.type.shape[axis:])), x) for x in items]
    return joined(ctx, node, grown, axis)


def _optional(ctx: Context, node: Node) -> Entry:
    return ctx.any_entry(node, 0) if ctx.has(node, 0) else NOTHING


def _get_element(ctx: Context, node: Node) -> Entry:
    entry = ctx.any_entry(node, 0)
    if entry is NOTHING:
        raise Unsupported(f"reads {NOTHING.what}")
    return entry


def _has_element(ctx: Context, node: Node) -> Converted:
    return Known(np.array(ctx.has(node, 0) and ctx.any_entry(node, 0) is not NOTHING))


SEQUENCES: dict[str, Callable[[Context, Node], Entry]] = {
    "SequenceConstruct": _construct,
    "SequenceEmpty": _empty,
    "SplitToSequence": _split_to_sequence,
    "SequenceAt": _at,
    "SequenceLength": _length,
    "SequenceInsert": _insert,
    "SequenceErase": _erase,
    "ConcatFromSequence": _concatenate,
    "Optional": _optional,
    "OptionalGetElement": _get_element,
    "OptionalHasElement": _has_element,
}
