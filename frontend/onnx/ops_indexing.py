"""Operators that pick or place elements by index, rank them, or add them up along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from edgec.frontend.onnx.arguments import normal_axis
from edgec.frontend.onnx.context import MAX_FOLDED, Context, Converted, Known
from edgec.frontend.onnx.model import Node, Opaque, Unsupported
from edgec.frontend.onnx.ops_logic import cast
from edgec.frontend.onnx.tensors import numpy_dtype
from edgec.graph.ir import Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.arg_max import ArgMax
from edgec.graph.ops.arg_min import ArgMin
from edgec.graph.ops.broadcast_to import BroadcastTo
from edgec.graph.ops.cum_prod import CumProd
from edgec.graph.ops.cum_sum import CumSum
from edgec.graph.ops.gather import Gather
from edgec.graph.ops.gather_elements import GatherElements
from edgec.graph.ops.gather_nd import GatherNd
from edgec.graph.ops.less import Less
from edgec.graph.ops.mod import Mod
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.scatter_elements import ScatterElements
from edgec.graph.ops.scatter_nd import ScatterNd
from edgec.graph.ops.sub import Sub
from edgec.graph.ops.top_k import TopK
from edgec.graph.ops.where import Where
from edgec.graph.types import DType


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
    if axis == 0 or updates.type.rank != x.type.rank:
        raise Unsupported(f"axis {axis}, and updates of rank {updates.type.rank} for rank {x.type.rank}")
    length, tail = x.type.shape[axis], (1,) * (x.type.rank - 1 - axis)
    steps = ctx.constant(node, np.arange(updates.type.shape[axis]).reshape(-1, *tail))
    if ctx.has(node, 2):
        starts = cast(ctx, node, ctx.value(node, 2), DType.I64)
        if starts.type.shape != x.type.shape[:1]:
            raise Unsupported(f"write positions of shape {list(starts.type.shape)} for {x.type.shape[0]} rows")
        starts = ctx.emit(node, Reshape((x.type.shape[0], *(1,) * (x.type.rank - 1))), starts)
        steps = ctx.emit(node, Add(), starts, steps)
    if node.get_str("mode", "linear") == "circular":
        steps = ctx.emit(node, Mod(), steps, ctx.number(node, length, steps))
    table = ctx.emit(node, BroadcastTo(updates.type.shape), steps)
    return ctx.emit(node, ScatterElements(axis), x, table, updates)


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
    given = ctx.entry(node, 1)
    if isinstance(given, Known) and given.array.max(initial=0) > x.type.shape[time]:
        raise Unsupported(f"lengths {given.array.reshape(-1).tolist()} do not fit {list(x.type.shape)}")
    lengths = cast(ctx, node, ctx.value(node, 1), DType.I64)
    if lengths.type.shape != (x.type.shape[batch],):
        raise Unsupported(f"{list(lengths.type.shape)} lengths for {x.type.shape[batch]} rows")
    tail = (1,) * (x.type.rank - 2)
    shapes = ((1, -1, *tail), (-1, 1, *tail))
    steps = ctx.constant(node, np.arange(x.type.shape[time]).reshape(shapes[1 - time]))
    shape = (1, lengths.type.size, *tail) if batch else (lengths.type.size, 1, *tail)
    lengths = ctx.emit(node, Reshape(shape), lengths)
    last = ctx.emit(node, Sub(), lengths, ctx.number(node, 1, lengths))
    mirrored = ctx.emit(node, Sub(), last, steps)
    table = ctx.emit(node, Where(), ctx.emit(node, Less(), steps, lengths), mirrored, steps)
    return ctx.emit(node, GatherElements(time), x, ctx.emit(node, BroadcastTo(x.type.shape), table))


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
    "EyeLike": _eye_like,
}
