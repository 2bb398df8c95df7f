"""Operators that pick elements by index, and those that give indices: embeddings, gathers, rankings."""

from __future__ import annotations

from functools import partial

import torch

from edgec.frontend.torch.call import Call, Known, Unsupported
from edgec.frontend.torch.context import Context, Converted, Entry, to_numpy
from edgec.frontend.torch.ops_elementwise import operand
from edgec.frontend.torch.ops_movement import reshape, runs_of, take
from edgec.graph.ir import Value
from edgec.graph.ops.arg_max import ArgMax
from edgec.graph.ops.arg_min import ArgMin
from edgec.graph.ops.gather import Gather
from edgec.graph.ops.gather_elements import GatherElements
from edgec.graph.ops.gather_nd import GatherNd
from edgec.graph.ops.reduce_max import ReduceMax
from edgec.graph.ops.reduce_min import ReduceMin
from edgec.graph.ops.scatter_elements import ScatterElements
from edgec.graph.ops.top_k import TopK
from edgec.graph.types import DType

_MAX_RUNS = 8  # slices that are better than a gather


def _embedding(ctx: Context, call: Call) -> Converted:
    return ctx.emit(call, Gather(0), ctx.value(call, "weight"), ctx.value(call, "indices"))


def _picked(ctx: Context, call: Call, x: Value, axis: int, index: Entry) -> Value:
    """The slices of `x` at `index` along `axis`; indices that are known and lie in few runs are cut out."""
    if isinstance(index, Value):
        return ctx.emit(call, Gather(axis), x, index)
    flat = [int(i) % x.type.shape[axis] for i in index.tensor.reshape(-1).tolist()]
    if len(runs_of(flat)) <= _MAX_RUNS and flat:
        y = take(ctx, call, x, axis, flat)
        return reshape(ctx, call, y, (*x.type.shape[:axis], *index.tensor.shape, *x.type.shape[axis + 1 :]))
    return ctx.emit(call, Gather(axis), x, ctx.as_value(index))


def _index_select(ctx: Context, call: Call) -> Converted:
    x = ctx.value(call, "self")
    return _picked(ctx, call, x, ctx.axis(call, "dim", x.type.rank), ctx.entry(call, "index"))


def _index(ctx: Context, call: Call) -> Converted:
    """x[i], x[:, i], x[i, j]: one index along any axis, or known ones along the first axes."""
    x = ctx.value(call, "self")
    given = [(axis, ctx.resolve(item)) for axis, item in enumerate(ctx.list(call, "indices")) if item is not None]
    for _, entry in given:
        if (entry.type.dtype is DType.BOOL) if isinstance(entry, Value) else entry.tensor.dtype == torch.bool:
            raise Unsupported("its output shape depends on data")
    if len(given) == 1:
        return _picked(ctx, call, x, given[0][0], given[0][1])
    if [axis for axis, _ in given] != list(range(len(given))) or not all(isinstance(e, Known) for _, e in given):
        raise Unsupported("several indices; one along any axis or constants along the first axes are supported")
    coordinates = torch.broadcast_tensors(*(entry.tensor for _, entry in given))
    wrapped = [c % extent for c, extent in zip(coordinates, x.type.shape, strict=False)]
    return ctx.emit(call, GatherNd(), x, ctx.constant(call, to_numpy(torch.stack(wrapped, -1)), DType.I64))


def _gather(ctx: Context, call: Call) -> Converted:
    x = ctx.value(call, "self")
    return ctx.emit(call, GatherElements(ctx.axis(call, "dim", x.type.rank)), x, ctx.value(call, "index"))


def _scatter(reduction: str, ctx: Context, call: Call) -> Converted:
    x, index, updates = ctx.value(call, "self"), ctx.value(call, "index"), ctx.value(call, "src")
    return ctx.emit(call, ScatterElements(ctx.axis(call, "dim", x.type.rank), reduction), x, index, updates)


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
    "aten.index.Tensor": _index,
    "aten.gather.default": _gather,
    "aten.scatter.src": partial(_scatter, "none"),
    "aten.scatter_add.default": partial(_scatter, "add"),
    "aten.argmax.default": partial(_position, ArgMax),
    "aten.argmin.default": partial(_position, ArgMin),
    "aten.max.dim": partial(_extreme, ReduceMax, ArgMax),
    "aten.min.dim": partial(_extreme, ReduceMin, ArgMin),
    "aten.topk.default": partial(_top, None),
    "aten.sort.default": partial(_top, 0),
    "aten.sort.stable": partial(_top, 0),
}
