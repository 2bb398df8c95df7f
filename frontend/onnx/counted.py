"""Operators on tensors whose extent along one axis depends on data.

Each runs on the room that such a tensor has, as on any other tensor. A rule says along which axis of the result the
count holds then, and sees to it that nothing behind a count decides on anything before it. What has no rule is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgec.frontend.onnx.arguments import normal_axes, normal_axis, slice_ranges
from edgec.frontend.onnx.context import (
    DEPENDS_ON_DATA,
    MAX_ELEMENTS,
    Context,
    Converted,
    Counted,
    Entry,
    Known,
    Results,
)
from edgec.frontend.onnx.model import Node, Unsupported
from edgec.frontend.onnx.ops_elementwise import ELEMENTWISE
from edgec.frontend.onnx.ops_found import FOUND, compacted, only_within, within
from edgec.frontend.onnx.ops_logic import LOGIC
from edgec.frontend.onnx.ops_math import MATH
from edgec.frontend.onnx.ops_reduce import beyond_all
from edgec.graph.ir import Role, Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.cast import Cast
from edgec.graph.ops.clip import Clip
from edgec.graph.ops.concat import Concat
from edgec.graph.ops.div import Div
from edgec.graph.ops.less import Less
from edgec.graph.ops.minimum import Minimum
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reduce_min import ReduceMin
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.slice import Slice
from edgec.graph.ops.top_k import TopK
from edgec.graph.ops.where import Where

Converter = Callable[[Context, Node], Converted]


def on_counted(ctx: Context, node: Node, convert: Converter) -> Results:
    """The results of `convert`, for a node with counted inputs. Unsupported where nothing is known of it."""
    rule = None if node.domain else RULES.get(node.op)
    if rule is None:
        (entry, *_) = counted_inputs(ctx, node).values()
        raise Unsupported(f"{entry}: it {DEPENDS_ON_DATA}")
    results = rule(ctx, node, convert)
    return results if isinstance(results, tuple) else (results,)


def counted_inputs(ctx: Context, node: Node) -> dict[int, Counted]:
    """Those inputs by number."""
    entries = {i: ctx.any_entry(node, i) for i, name in enumerate(node.inputs) if name}
    return {i: entry for i, entry in entries.items() if isinstance(entry, Counted)}


def _in_room(ctx: Context, node: Node, convert: Converter, **given: Entry) -> Results:
    """The results on all that the inputs have room for; `given` entries stand for inputs of those names."""
    rooms = {node.inputs[i]: entry.value for i, entry in counted_inputs(ctx, node).items()}
    with ctx.scope(rooms | given):
        made = convert(ctx, node)
    return made if isinstance(made, tuple) else (made,)


def _only(ctx: Context, node: Node) -> tuple[Counted, list[int]]:
    """The one count that all counted inputs have in common, as one of them, and which they are."""
    found = counted_inputs(ctx, node)
    first, *others = found.values()
    if any(other.count is not first.count for other in others):
        raise Unsupported("reads tensors of different extents that depend on data")
    return first, list(found)


def _all_along(results: Results, axis: int, count: Value) -> Results:
    return tuple(Counted(y, axis, count) if isinstance(y, Value) else y for y in results)


def _elementwise(ctx: Context, node: Node, convert: Converter) -> Converted:
    x, slots = _only(ctx, node)
    from_end = x.value.type.rank - x.axis
    for index, name in enumerate(node.inputs):
        if not name:
            continue
        entry = ctx.any_entry(node, index)
        if isinstance(entry, Counted):
            aligned = entry.value.type.rank - entry.axis == from_end
        else:
            shape = ctx.type(node, index).shape
            aligned = len(shape) < from_end or shape[len(shape) - from_end] == 1
        if not aligned:
            raise Unsupported(f"{x}, beside a tensor of another extent there")
    results = _in_room(ctx, node, convert)
    return tuple(Counted(y, y.type.rank - from_end, x.count) if isinstance(y, Value) else y for y in results)


def _gather(ctx: Context, node: Node, convert: Converter) -> Converted:
    found = counted_inputs(ctx, node)
    indices, x = found.get(1), found.get(0)
    rank = x.value.type.rank if x else ctx.type(node, 0).rank
    axis = normal_axis(node.get_int("axis", 0), rank)
    inner = (indices.value.type if indices else ctx.type(node, 1)).rank
    given = {}
    if x is not None and x.axis == axis:
        given[node.inputs[1]] = _from_the_front(ctx, node, indices.value if indices else ctx.value(node, 1), x.count)
    results = _in_room(ctx, node, convert, **given)
    if x is not None and x.axis != axis:
        if indices is not None:
            raise Unsupported("has two extents that depend on data")
        return _all_along(results, x.axis if x.axis < axis else x.axis - 1 + inner, x.count)
    return _all_along(results, axis + indices.axis, indices.count) if indices else results


def _from_the_front(ctx: Context, node: Node, indices: Value, count: Value) -> Value:
    """Indices into an axis that ends at `count`."""
    end = ctx.writer(node).cast(count, indices.type.dtype)
    negative = ctx.emit(node, Less(), indices, ctx.number(node, 0, indices))
    return ctx.emit(node, Where(), negative, ctx.emit(node, Add(), indices, end), indices)


def _gather_nd(ctx: Context, node: Node, convert: Converter) -> Converted:
    found = counted_inputs(ctx, node)
    indices, x = found.get(1), found.get(0)
    places = indices.value if indices else ctx.value(node, 1)
    outer, depth = places.type.rank - 1, places.type.shape[-1]
    if node.get_int("batch_dims", 0) or (indices and indices.axis == outer):
        raise Unsupported(f"{indices or x}, which is a batch or a coordinate")
    given = {}
    if x is not None and x.axis < depth:
        extents = np.array(x.value.type.shape[:depth], np.int64)
        ends = _with_count(ctx, node, extents, np.arange(depth) == x.axis, x.count)
        given[node.inputs[1]] = _from_the_front(ctx, node, places, ends)
    elif x is not None and indices is not None:
        raise Unsupported("has two extents that depend on data")
    results = _in_room(ctx, node, convert, **given)
    if x is not None and x.axis >= depth:
        return _all_along(results, outer + x.axis - depth, x.count)
    return _all_along(results, indices.axis, indices.count) if indices else results


def _slice(ctx: Context, node: Node, convert: Converter) -> Converted:
    """Other axes as ever; of its own the first so many slices, or all."""
    found = counted_inputs(ctx, node)
    if list(found) != [0]:
        raise Unsupported("cuts at places that depend on data")
    x = found[0]
    names = ("starts", "ends", "axes", "steps")
    starts, ends, axes, steps = (
        ctx.known_ints(node, i, f"the list of {name}") if ctx.has(node, i) else node.get_ints(name, ()) or None
        for i, name in enumerate(names, 1)
    )
    named = normal_axes(axes, x.value.type.rank) if axes else tuple(range(len(starts or ())))
    (results,) = _in_room(ctx, node, convert)
    if x.axis not in named:
        return Counted(results, x.axis, x.count)
    place = [normal_axis(axis, x.value.type.rank) for axis in axes or named].index(x.axis)
    taken = slice_ranges(x.value.type.shape, starts or (), ends or (), axes, steps)[x.axis]
    if starts[place] != 0 or ends[place] < 0 or taken.step != 1:
        raise Unsupported(f"{x}, and cuts more than its first slices out of it")
    return Counted(results, x.axis, _at_most(ctx, node, x.count, len(taken)))


def _at_most(ctx: Context, node: Node, count: Value, limit: int) -> Value:
    return ctx.emit(node, Minimum(), count, ctx.number(node, limit, count))


def _reshape(ctx: Context, node: Node, convert: Converter) -> Converted:
    """The axis stays, or the -1 of the target takes it: alone, or with those behind it."""
    x = _one(ctx, node)
    (y,) = _in_room(ctx, node, convert)
    if node.op == "Flatten":
        cut = node.get_int("axis", 1)
        wanted = (-1, 0) if x.axis < (cut if cut >= 0 else cut + x.value.type.rank) else (0, -1)
    else:
        wanted = ctx.known_ints(node, 1, "the target shape")
    old, new = x.value.type.shape, y.type.shape
    for axis, extent in enumerate(wanted):
        kept = extent == 0 and axis == x.axis and new[axis] == old[axis]
        if not (kept or extent == -1) or math.prod(new[:axis]) != math.prod(old[: x.axis]):
            continue
        if new[axis] == old[x.axis]:
            return Counted(y, axis, x.count)
        if new[axis] % old[x.axis] == 0:
            factor = ctx.number(node, new[axis] // old[x.axis], x.count)
            return Counted(y, axis, ctx.emit(node, Mul(), x.count, factor))
        if old[x.axis] % new[axis] == 0:
            factor = ctx.number(node, old[x.axis] // new[axis], x.count)
            return Counted(y, axis, ctx.emit(node, Div(), x.count, factor))
    raise Unsupported(f"{x}, which is not the -1 of the target shape {list(wanted)}")


def _one(ctx: Context, node: Node) -> Counted:
    """The first input, where no other is counted."""
    found = counted_inputs(ctx, node)
    if list(found) != [0]:
        raise Unsupported(f"an argument of the operator {DEPENDS_ON_DATA}")
    return found[0]


def _squeeze(ctx: Context, node: Node, convert: Converter) -> Converted:
    x = _one(ctx, node)
    axes = ctx.known_ints(node, 1, "the list of axes") if ctx.has(node, 1) else node.get_ints("axes", ())
    dropped = normal_axes(axes, x.value.type.rank)
    if not axes or x.axis in dropped:
        raise Unsupported(f"{x}: which axes are 1 is not known")
    return _all_along(_in_room(ctx, node, convert), x.axis - sum(a < x.axis for a in dropped), x.count)


def _unsqueeze(ctx: Context, node: Node, convert: Converter) -> Converted:
    x = _one(ctx, node)
    axes = ctx.known_ints(node, 1, "the list of axes") if ctx.has(node, 1) else node.get_ints("axes", ())
    rank = x.value.type.rank + len(axes)
    kept = [axis for axis in range(rank) if axis not in normal_axes(axes, rank)]
    return _all_along(_in_room(ctx, node, convert), kept[x.axis], x.count)


def _transpose(ctx: Context, node: Node, convert: Converter) -> Converted:
    x = _one(ctx, node)
    perm = node.get_ints("perm", tuple(reversed(range(x.value.type.rank))))
    return _all_along(_in_room(ctx, node, convert), perm.index(x.axis), x.count)


def _concat(ctx: Context, node: Node, convert: Converter) -> Converted:
    """Beside one another, or one behind the other: then without the gaps."""
    found = counted_inputs(ctx, node)
    first = next(iter(found.values()))
    axis = normal_axis(node.get_int("axis", 1), first.value.type.rank)
    if all(part.axis != axis for part in found.values()):
        x, slots = _only(ctx, node)
        if len(slots) != len(node.inputs) or any(part.axis != x.axis for part in found.values()):
            raise Unsupported(f"{x}, beside a tensor of another extent there")
        return _all_along(_in_room(ctx, node, convert), x.axis, x.count)
    if any(part.axis != axis for part in found.values()):
        raise Unsupported("has two extents that depend on data")
    masks = []
    for index in range(len(node.inputs)):
        extent = (found[index].value.type if index in found else ctx.type(node, index)).shape[axis]
        whole = ctx.constant(node, np.ones(extent, bool))
        masks.append(within(ctx, node, extent, found[index].count) if index in found else whole)
    (joined,) = _in_room(ctx, node, convert)
    return compacted(ctx, node, joined, axis, ctx.writer(node).join(masks, 0))


def _shape(ctx: Context, node: Node, convert: Converter) -> Converted:
    """Known numbers, and one that is known when the program has run."""
    x = _one(ctx, node)
    (whole,) = _in_room(ctx, node, convert)
    place = range(x.value.type.rank)[slice(node.get_int("start", 0), node.get_int("end", x.value.type.rank))]
    if x.axis not in place:
        return whole
    here = np.arange(place.start, place.stop) == x.axis
    return _with_count(ctx, node, whole.array, here, x.count)


def _with_count(ctx: Context, node: Node, extents: np.ndarray, here: np.ndarray, count: Value) -> Value:
    return ctx.emit(node, Where(), ctx.constant(node, here), count, ctx.constant(node, extents))


def _top_k(ctx: Context, node: Node, convert: Converter) -> Converted:
    """Of what there is the best k, or all if there are fewer; what lies behind the count comes last."""
    x = ctx.any_entry(node, 0)
    if not isinstance(x, Counted) or 1 in counted_inputs(ctx, node):
        raise Unsupported(f"k {DEPENDS_ON_DATA}")
    shape = x.value.type.shape
    axis = normal_axis(node.get_int("axis", -1), len(shape))
    if axis != x.axis:
        return _all_along(_in_room(ctx, node, convert), x.axis, x.count)
    most = ctx.entry(node, 1) if node.opset >= 10 else Known(np.array(node.get_int("k")))
    if isinstance(most, Known):
        limit = min(int(ctx.known_scalar(node, 1, "k") if node.opset >= 10 else node.get_int("k")), shape[axis])
        count = _at_most(ctx, node, x.count, limit)
    else:
        limit = max(min(shape[axis], _bound(most)), 1)
        k = ctx.writer(node).cast(most, x.count.type.dtype)
        count = ctx.emit(node, Minimum(), x.count, ctx.emit(node, Reshape(()), k) if k.type.shape else k)
    largest = bool(node.get_int("largest", 1))
    ranked = only_within(ctx, node, x, beyond_all(x.value, lowest=largest))
    return _all_along(ctx.emit_all(node, TopK(axis, limit, largest), ranked), axis, count)


def _bound(value: Value, depth: int = 8) -> int:
    """What no element of integers exceeds, as far as the constants say that they were compared with."""
    if value.role is Role.CONSTANT:
        return int(value.data.max(initial=0))
    if value.producer is None or not depth:
        return MAX_ELEMENTS
    op, inputs = value.producer.op, value.producer.inputs
    if isinstance(op, ReduceMin) and inputs[0].producer is not None and isinstance(inputs[0].producer.op, Concat):
        op, inputs = Minimum(), inputs[0].producer.inputs
    if isinstance(op, Minimum):
        return min(_bound(operand, depth - 1) for operand in inputs)
    if isinstance(op, Clip):
        return int(min(max(op.high, op.low), _bound(inputs[0], depth - 1)))
    if isinstance(op, Cast | Reshape | Slice):
        return _bound(inputs[0], depth - 1)
    return MAX_ELEMENTS


# What does not change the result of a reduction.
_NEUTRAL: dict[str, Callable[[Value], float]] = {
    "ReduceSum": lambda x: 0,
    "ReduceSumSquare": lambda x: 0,
    "ReduceL1": lambda x: 0,
    "ReduceL2": lambda x: 0,
    "ReduceProd": lambda x: 1,
    "ReduceMax": lambda x: beyond_all(x, lowest=True),
    "ReduceMin": lambda x: beyond_all(x, lowest=False),
}


def _reduce(ctx: Context, node: Node, convert: Converter) -> Converted:
    x = _one(ctx, node)
    rank = x.value.type.rank
    axes = ctx.known_ints(node, 1, "the list of axes") if ctx.has(node, 1) else node.get_ints("axes", ())
    if not axes and node.get_int("noop_with_empty_axes", 0):
        return x
    reduced = normal_axes(axes or range(rank), rank)
    if x.axis in reduced:
        if node.op not in _NEUTRAL:
            raise Unsupported(f"{x}, and reduces it")
        return _in_room(ctx, node, convert, **{node.inputs[0]: only_within(ctx, node, x, _NEUTRAL[node.op](x.value))})
    before = 0 if node.get_int("keepdims", 1) else sum(axis < x.axis for axis in reduced)
    return _all_along(_in_room(ctx, node, convert), x.axis - before, x.count)


def _split(ctx: Context, node: Node, convert: Converter) -> Converted:
    x = _one(ctx, node)
    if normal_axis(node.get_int("axis", 0), x.value.type.rank) == x.axis:
        raise Unsupported(f"{x}, and is split there")
    return _all_along(_in_room(ctx, node, convert), x.axis, x.count)


def _looks_along(ctx: Context, node: Node, convert: Converter) -> Converted:
    """Ops that look along one axis, which is another one."""
    x = _one(ctx, node)
    arg = node.op in ("ArgMax", "ArgMin")
    axis = normal_axis(node.get_int("axis", 0 if arg else -1), x.value.type.rank)
    if axis == x.axis or (not arg and node.opset < 13):
        raise Unsupported(f"{x}, and looks along it")
    dropped = arg and not node.get_int("keepdims", 1) and axis < x.axis
    return _all_along(_in_room(ctx, node, convert), x.axis - dropped, x.count)


def _rows(ctx: Context, node: Node, convert: Converter) -> Converted:
    """Layers on a batch, or on regions, of which there are as many as the count says: each is computed by itself."""
    x, slots = _only(ctx, node)
    regions = node.op == "RoiAlign"
    if slots != ([1, 2] if regions else [0]) or any(part.axis for part in counted_inputs(ctx, node).values()):
        raise Unsupported(f"{x}; the first axis of {'regions' if regions else 'the input'} may")
    if node.get_int("transA", 0) or node.get_int("training_mode", 0):
        raise Unsupported(f"{x}, and adds along it")
    return _all_along(_in_room(ctx, node, convert), 0, x.count)


def _matmul(ctx: Context, node: Node, convert: Converter) -> Converted:
    """Rows of a matrix by one that all of them share."""
    x = _one(ctx, node)
    if x.axis == x.value.type.rank - 1 or ctx.type(node, 1).rank > 2:
        raise Unsupported(f"{x}; rows of the first operand may, by one matrix")
    return _all_along(_in_room(ctx, node, convert), x.axis, x.count)


def _find(ctx: Context, node: Node, convert: Converter) -> Converted:
    return convert(ctx, node)  # which looks at counts itself


RULES: dict[str, Callable[[Context, Node, Converter], Converted]] = {
    **dict.fromkeys((*ELEMENTWISE, *LOGIC, *MATH), _elementwise),
    **dict.fromkeys(FOUND, _find),
    **dict.fromkeys((*_NEUTRAL, "ReduceMean", "ReduceLogSumExp"), _reduce),
    **dict.fromkeys(("ArgMax", "ArgMin", "Softmax", "LogSoftmax"), _looks_along),
    **dict.fromkeys(
        ("Conv", "Gemm", "MaxPool", "AveragePool", "GlobalAveragePool", "BatchNormalization", "RoiAlign"), _rows
    ),
    "MatMul": _matmul,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Slice": _slice,
    "Split": _split,
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Concat": _concat,
    "Shape": _shape,
    "TopK": _top_k,
}
