"""Operators that pick elements by index, and those that give indices: embeddings, gathers, rankings."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from edgec.frontend.runs import few_runs
from edgec.frontend.torch.call import Call
from edgec.frontend.torch.context import Context, Converted, Entry
from edgec.frontend.torch.ops_elementwise import operand
from edgec.frontend.torch.ops_movement import cut, reshape, take
from edgec.graph.ir import Value
from edgec.graph.ops.arg_max import ArgMax
from edgec.graph.ops.arg_min import ArgMin
from edgec.graph.ops.div import Div
from edgec.graph.ops.gather import Gather
from edgec.graph.ops.gather_elements import GatherElements
from edgec.graph.ops.maximum import Maximum
from edgec.graph.ops.reduce_max import ReduceMax
from edgec.graph.ops.reduce_min import ReduceMin
from edgec.graph.ops.scatter_elements import ScatterElements
from edgec.graph.ops.top_k import TopK


def _embedding(ctx: Context, call: Call) -> Converted:
    padding = ctx.integer(call, "padding_idx") if ctx.has(call, "padding_idx") else -1
    return ctx.emit(call, Gather(0, padding), ctx.value(call, "weight"), ctx.value(call, "indices"))


def picked(ctx: Context, call: Call, x: Value, axis: int, index: Entry) -> Value:
    """The slices of `x` at `index` along `axis`; indices that are known and lie in few runs are cut out."""
    if isinstance(index, Value):
        return ctx.emit(call, Gather(axis), x, index)
    flat = [int(i) % x.type.shape[axis] for i in index.tensor.reshape(-1).tolist()]
    if few_runs(flat):
        y = take(ctx, call, x, axis, flat)
        return reshape(ctx, call, y, (*x.type.shape[:axis], *index.tensor.shape, *x.type.shape[axis + 1 :]))
    return ctx.emit(call, Gather(axis), x, ctx.as_value(index))


def _index_select(ctx: Context, call: Call) -> Converted:
    x = ctx.value(call, "self")
    return picked(ctx, call, x, ctx.axis(call, "dim", x.type.rank), ctx.entry(call, "index"))


def _gather(ctx: Context, call: Call) -> Converted:
    x, index = ctx.value(call, "self"), ctx.value(call, "index")
    axis = ctx.axis(call, "dim", x.type.rank)
    return ctx.emit(call, GatherElements(axis), _corner(ctx, call, x, index.type.shape, axis), index)


def _corner(ctx: Context, call: Call, x: Value, shape: tuple[int, ...], axis: int) -> Value:
    """`x` as far as `shape` reaches, along all axes but one."""
    for other, extent in enumerate(shape):
        x = x if other == axis else cut(ctx, call, x, other, range(extent))
    return x


def _scatter(reduction: str, ctx: Context, call: Call) -> Converted:
    """Indices may reach less far than what they are for, along every axis."""
    x, index = ctx.value(call, "self"), ctx.value(call, "index")
    axis = ctx.axis(call, "dim", x.type.rank)
    if "value" in call.arguments:
        updates = ctx.constant(call, np.full(index.type.shape, ctx.number(call, "value")), x.type.dtype)
    else:
        updates = _corner(ctx, call, ctx.value(call, "src"), index.type.shape, -1)
    return ctx.emit(call, ScatterElements(axis, reduction), x, index, updates)


def _scatter_reduce(ctx: Context, call: Call) -> Converted:
    x, index = ctx.value(call, "self"), ctx.value(call, "index")
    axis, kind = ctx.axis(call, "dim", x.type.rank), call.arguments["reduce"]
    updates = _corner(ctx, call, ctx.value(call, "src"), index.type.shape, -1)
    reductions = {"sum": "add", "mean": "add", "prod": "mul", "amax": "max", "amin": "min"}
    ones = ctx.constant(call, np.ones(index.type.shape), x.type.dtype)
    counted = ctx.constant(call, np.full(x.type.shape, 1.0 if ctx.flag(call, "include_self") else 0.0), x.type.dtype)
    if not ctx.flag(call, "include_self"):
        start = {"add": 0.0, "mul": 1.0, "max": -math.inf, "min": math.inf}[reductions[kind]]
        first = ctx.constant(call, np.full(index.type.shape, start), x.type.dtype)
        x = ctx.emit(call, ScatterElements(axis), x, index, first)
    y = ctx.emit(call, ScatterElements(axis, reductions[kind]), x, index, updates)
    if kind != "mean":
        return y
    count = ctx.emit(call, ScatterElements(axis, "add"), counted, index, ones)
    return ctx.emit(call, Div(), y, ctx.emit(call, Maximum(), count, ctx.scalar(call, 1.0, count)))


def _position(kind: type[ArgMax] | type[ArgMin], ctx: Context, call: Call) -> Converted:
    x = ctx.value(call, "self")
    if not ctx.has(call, "dim"):
        flat = reshape(ctx, call, x, (x.type.size,))
        return reshape(ctx, call, ctx.emit(call, kind(0), flat), call.shape)
    return ctx.emit(call, kind(ctx.axis(call, "dim", x.type.rank), ctx.flag(call, "keepdim")), x)


def _extreme(kind: type, position: type, ctx: Context, call: Call) -> Converted:
    """Values and positions; of those that nothing reads, nothing stays."""
    x = operand(ctx, call, "self")
    axis, keep = ctx.axis(call, "dim", x.type.rank), ctx.flag(call, "keepdim")
    return ctx.emit(call, kind((axis,), keep), x), ctx.emit(call, position(axis, keep), x)


def _top(count: int | None, ctx: Context, call: Call) -> Converted:
    x = ctx.value(call, "self")
    axis = ctx.axis(call, "dim", x.type.rank)
    flag = "largest" if count is None else "descending"
    k = ctx.integer(call, "k") if count is None else x.type.shape[axis]
    return ctx.emit_all(call, TopK(axis, k, ctx.flag(call, flag)), x)


INDEXING = {
    "aten.embedding.default": _embedding,
    "aten.index_select.default": _index_select,
    "aten.gather.default": _gather,
    "aten.scatter.src": partial(_scatter, "none"),
    "aten.scatter.value": partial(_scatter, "none"),
    "aten.scatter_add.default": partial(_scatter, "add"),
    "aten.scatter_reduce.two": _scatter_reduce,
    "aten.argmax.default": partial(_position, ArgMax),
    "aten.argmin.default": partial(_position, ArgMin),
    "aten.max.dim": partial(_extreme, ReduceMax, ArgMax),
    "aten.min.dim": partial(_extreme, ReduceMin, ArgMin),
    "aten.topk.default": partial(_top, None),
    "aten.sort.default": partial(_top, 0),
    "aten.sort.stable": partial(_top, 0),
}
