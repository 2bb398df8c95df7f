"""Operators that pick or place elements by index, rank them, or add them up along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from edgec.frontend.onnx.arguments import broadcast, normal_axis
from edgec.frontend.onnx.context import MAX_FOLDED, Context, Converted, Known
from edgec.frontend.onnx.model import Node, Opaque, Unsupported
from edgec.frontend.onnx.tensors import numpy_dtype
from edgec.graph.ir import Value
from edgec.graph.ops.arg_max import ArgMax
from edgec.graph.ops.arg_min import ArgMin
from edgec.graph.ops.cum_prod import CumProd
from edgec.graph.ops.cum_sum import CumSum
from edgec.graph.ops.gather import Gather
from edgec.graph.ops.gather_elements import GatherElements
from edgec.graph.ops.gather_nd import GatherNd
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.scatter_elements import ScatterElements
from edgec.graph.ops.scatter_nd import ScatterNd
from edgec.graph.ops.top_k import TopK


def bounded(count: int) -> None:
    """Unsupported if a table of `count` entries is too much to make at compile time."""
    if count > MAX_FOLDED:
        raise Unsupported(f"needs a table of {count} entries; {MAX_FOLDED} are the most")


def pick(ctx: Context, node: Node, x: Value, axis: int, positions: Sequence[int] | np.ndarray) -> Value:
    """The slices of `x` at positions along `axis` that are known at compile time, each within its extent."""
    table = np.asarray(positions, np.int32)
    if np.array_equal(table, np.arange(x.type.shape[axis])):
        return x
    return ctx.emit(node, Gather(axis), x, ctx.constant(node, table))


def _gather_elements(ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    return ctx.emit(node, GatherElements(normal_axis(node.get_int("axis", 0), x.type.rank)), x, ctx.value(node, 1))


def _gather_nd(ctx: Context, node: Node) -> Converted:
    return ctx.emit(node, GatherNd(node.get_int("batch_dims", 0)), ctx.value(node, 0), ctx.value(node, 1))


def _scatter_elements(ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    op = ScatterElements(normal_axis(node.get_int("axis", 0), x.type.rank), node.get_str("reduction", "none"))
    return ctx.emit(node, op, x, ctx.value(node, 1), ctx.value(node, 2))


def _scatter_nd(ctx: Context, node: Node) -> Converted:
    op = ScatterNd(node.get_str("reduction", "none"))
    return ctx.emit(node, op, *(ctx.value(node, index) for index in range(3)))


def _tensor_scatter(ctx: Context, node: Node) -> Converted:
    """A cache [N, ..., S, ...] with updates [N, ..., T, ...] written from a position on that each row has."""
    x, updates = ctx.value(node, 0), ctx.value(node, 1)
    axis = normal_axis(node.get_int("axis", -2), x.type.rank)
    steps, length = updates.type.shape[axis], x.type.shape[axis]
    if axis == 0 or updates.type.rank != x.type.rank:
        raise Unsupported(f"axis {axis}, and updates of rank {updates.type.rank} for rank {x.type.rank}")
    bounded(updates.type.size)
    given = ctx.known_ints(node, 2, "the list of write positions") if ctx.has(node, 2) else (0,) * x.type.shape[0]
    positions = np.array(given, np.int64).reshape(-1, 1) + np.arange(steps)
    if node.get_str("mode", "linear") == "circular":
        positions %= length
    if positions.shape[0] != x.type.shape[0] or positions.min(initial=0) < 0 or positions.max(initial=0) >= length:
        raise Unsupported(f"write positions lie outside of {length}")
    shape = [1] * x.type.rank
    shape[0], shape[axis] = positions.shape
    if broadcast(tuple(shape), updates.type.shape) != updates.type.shape:
        raise Unsupported(f"updates of shape {list(updates.type.shape)} do not fit the cache")
    table = np.broadcast_to(positions.reshape(shape), updates.type.shape)
    return ctx.emit(node, ScatterElements(axis), x, ctx.constant(node, np.array(table)), updates)


def _arg(op: type[ArgMax | ArgMin], ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    axis = normal_axis(node.get_int("axis", 0), x.type.rank)
    last = bool(node.get_int("select_last_index", 0))
    return ctx.emit(node, op(axis, bool(node.get_int("keepdims", 1)), last), x)


def _top_k(ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    k = ctx.known_scalar(node, 1, "k") if node.opset >= 10 else node.get_int("k")
    if not float(k).is_integer():
        raise Unsupported(f"k is {k}")
    op = TopK(normal_axis(node.get_int("axis", -1), x.type.rank), int(k), bool(node.get_int("largest", 1)))
    return ctx.emit_all(node, op, x)


def _cumulative(op: type[CumSum | CumProd], ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    axes = ctx.known_ints(node, 1, "the axis")
    if len(axes) != 1:
        raise Unsupported(f"{len(axes)} axes")
    axis = normal_axis(axes[0], x.type.rank)
    return ctx.emit(node, op(axis, bool(node.get_int("exclusive", 0)), bool(node.get_int("reverse", 0))), x)


def _reverse_sequence(ctx: Context, node: Node) -> Converted:
    """The first elements of each row reversed, as many as its length says."""
    x = ctx.value(node, 0)
    time, batch = node.get_int("time_axis", 0), node.get_int("batch_axis", 1)
    if {time, batch} != {0, 1} or x.type.rank < 2:
        raise Unsupported(f"time_axis {time} and batch_axis {batch}; 0 and 1 are supported")
    bounded(x.type.size)
    steps = np.arange(x.type.shape[time])
    lengths = np.array(ctx.known_ints(node, 1, "the list of lengths"), np.int64).reshape(-1, 1)
    if lengths.shape[0] != x.type.shape[batch] or lengths.max(initial=0) > x.type.shape[time]:
        raise Unsupported(f"lengths {lengths.reshape(-1).tolist()} do not fit {list(x.type.shape)}")
    positions = np.where(steps < lengths, lengths - 1 - steps, steps)  # [batch, time]
    positions = positions if batch == 0 else positions.T
    table = np.broadcast_to(positions.reshape(*positions.shape, *(1,) * (x.type.rank - 2)), x.type.shape)
    return ctx.emit(node, GatherElements(time), x, ctx.constant(node, np.array(table, np.int64)))


def _compress(ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    chosen = np.flatnonzero(ctx.known(node, 1, "the condition"))
    if "axis" not in node.attributes:
        x, axis = ctx.emit(node, Reshape((x.type.size,)), x), 0
    else:
        axis = normal_axis(node.get_int("axis"), x.type.rank)
    if not len(chosen) or chosen[-1] >= x.type.shape[axis]:
        raise Unsupported("the condition chooses nothing, or more than there is")
    return pick(ctx, node, x, axis, chosen)


def _eye_like(ctx: Context, node: Node) -> Converted:
    kind = ctx.type(node, 0)
    if kind.rank != 2:
        raise Unsupported(f"an input of rank {kind.rank}")
    bounded(kind.size)
    dtype = numpy_dtype(node.get_int("dtype")) if "dtype" in node.attributes else kind.dtype.numpy
    if isinstance(dtype, Opaque):
        raise Unsupported(f"makes {dtype.what}")
    return Known(np.eye(*kind.shape, k=node.get_int("k", 0), dtype=dtype))


INDEXING = {
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ScatterElements": _scatter_elements,
    "Scatter": _scatter_elements,
    "ScatterND": _scatter_nd,
    "TensorScatter": _tensor_scatter,
    "ArgMax": partial(_arg, ArgMax),
    "ArgMin": partial(_arg, ArgMin),
    "TopK": _top_k,
    "CumSum": partial(_cumulative, CumSum),
    "CumProd": partial(_cumulative, CumProd),
    "ReverseSequence": _reverse_sequence,
    "Compress": _compress,
    "EyeLike": _eye_like,
}
