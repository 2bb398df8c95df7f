"""Pools over any number of axes, and local response normalisation.

A pool over three axes is one over the last two, then one over the first: maxima and sums are separable. Averages are
sums in this sense; what they are divided by is known at compile time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial, reduce

import numpy as np

from edgec.frontend.onnx.arguments import Sliding, read_sliding
from edgec.frontend.onnx.context import Context, Converted
from edgec.frontend.onnx.model import Node, Unsupported
from edgec.frontend.onnx.ops_indexing import bounded
from edgec.frontend.onnx.ops_logic import cast
from edgec.graph.ir import Value
from edgec.graph.ops.abs import Abs
from edgec.graph.ops.add import Add
from edgec.graph.ops.arg_max import ArgMax
from edgec.graph.ops.avg_pool2d import AvgPool2d
from edgec.graph.ops.broadcast_to import BroadcastTo
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.div import Div
from edgec.graph.ops.gather import Gather
from edgec.graph.ops.max_pool2d import MaxPool2d
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.pad import Pad
from edgec.graph.ops.pow import Pow
from edgec.graph.ops.reduce_max import ReduceMax
from edgec.graph.ops.reduce_mean import ReduceMean
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.ops.reduction import Reduction
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.scatter_elements import ScatterElements
from edgec.graph.ops.sqrt import Sqrt
from edgec.graph.types import DType


def _windows(ctx: Context, node: Node) -> list[Sliding]:
    shape = ctx.type(node, 0).shape
    if not 3 <= len(shape) <= 5:
        raise Unsupported(f"windows over {len(shape) - 2} axes; 1 to 3 are supported")
    windows = read_sliding(node, shape[2:], node.get_ints("kernel_shape"))
    same = node.get_str("auto_pad", "NOTSET").startswith("SAME")
    return [window.with_ceil() for window in windows] if node.get_int("ceil_mode", 0) and not same else windows


def _max_pool(ctx: Context, node: Node) -> Converted:
    def pool(x: Value, rows: Sliding, columns: Sliding) -> Value:
        op = MaxPool2d(
            (rows.kernel, columns.kernel),
            (rows.stride, columns.stride),
            (rows.low, columns.low, rows.high, columns.high),
            (rows.dilation, columns.dilation),
        )
        return ctx.emit(node, op, x)

    x, windows = ctx.value(node, 0), _windows(ctx, node)
    small = x.type.dtype in (DType.U8, DType.I8)  # which f32 holds exactly
    y = _separably(ctx, node, cast(ctx, node, x, DType.F32) if small else x, windows, pool)
    y = cast(ctx, node, y, x.type.dtype)
    return (y, _places(ctx, node, x, windows)) if any(node.outputs[1:]) else y


def _places(ctx: Context, node: Node, x: Value, windows: Sequence[Sliding]) -> Value:
    """Where in the whole of x[N, C, ...] the maxima stand: the first in each window."""
    n, c, *size = x.type.shape
    outputs, taps = (math.prod(numbers) for numbers in zip(*((w.output, w.kernel) for w in windows), strict=True))
    bounded(outputs * taps)
    order = "F" if node.get_int("storage_order", 0) else "C"
    read = np.meshgrid(*(window.taps().ravel() for window in windows), indexing="ij")
    inside = np.logical_and.reduce([(0 <= r) & (r < extent) for r, extent in zip(read, size, strict=True)])
    read = [np.clip(r, 0, extent - 1) for r, extent in zip(read, size, strict=True)]
    perm = (*range(0, 2 * len(size), 2), *range(1, 2 * len(size), 2))

    def rows(table: np.ndarray) -> np.ndarray:
        """[outputs, taps] of a table that has them axis by axis."""
        axes = [extent for window in windows for extent in (window.output, window.kernel)]
        return table.reshape(axes).transpose(perm).reshape(outputs, taps)

    elements = math.prod(size)
    sources = rows(np.where(inside, np.ravel_multi_index(read, size), elements))
    names = rows(np.ravel_multi_index(read, size, order=order))
    low = -math.inf if x.type.dtype.is_float else float(np.iinfo(x.type.dtype.numpy).min)
    flat = ctx.emit(node, Reshape((n, c, elements)), x)
    flat = ctx.emit(node, Pad((0, 0, 0), (0, 0, 1), low), flat)
    found = ctx.emit(node, Gather(2), flat, ctx.constant(node, sources.astype(np.int32)))
    best = ctx.emit(node, ArgMax(3), found)
    best = ctx.emit(node, Add(), best, ctx.constant(node, np.arange(outputs) * taps))
    place = ctx.emit(node, Gather(0), ctx.constant(node, names.reshape(-1).astype(np.int64)), best)
    starts = (np.arange(n * c) * elements).reshape(n, c, 1)
    place = ctx.emit(node, Add(), place, ctx.constant(node, starts))
    return ctx.emit(node, Reshape((n, c, *(window.output for window in windows))), place)


def _max_unpool(ctx: Context, node: Node) -> Converted:
    """The elements of x at the places that a max pool named, zeros elsewhere."""
    x, places = ctx.value(node, 0), ctx.value(node, 1)
    kernel = node.get_ints("kernel_shape")
    rank = len(kernel)
    strides, pads = node.get_ints("strides", (1,) * rank), node.get_ints("pads", (0,) * 2 * rank)
    n, c, *size = x.type.shape
    if places.type.shape != x.type.shape or not len(size) == rank == len(strides) == len(pads) // 2:
        raise Unsupported(f"places {places.type} and a kernel of {list(kernel)} for {x.type}")
    made = [(s - 1) * strides[i] + kernel[i] - pads[i] - pads[rank + i] for i, s in enumerate(size)]
    if min(made) < 1:
        raise Unsupported(f"a result of {made}")
    empty = ctx.emit(node, BroadcastTo((n * c * math.prod(made),)), ctx.number(node, 0, x))
    flat = (ctx.emit(node, Reshape((x.type.size,)), value) for value in (places, x))
    y = ctx.emit(node, Reshape((n, c, *made)), ctx.emit(node, ScatterElements(0), empty, *flat))
    wanted = ctx.known_ints(node, 2, "the shape of the result") if ctx.has(node, 2) else y.type.shape
    if len(wanted) != y.type.rank or wanted[:2] != (n, c) or any(a < b for a, b in zip(wanted[2:], made, strict=True)):
        raise Unsupported(f"a result of {list(wanted)} for {y.type}")
    more = tuple(a - b for a, b in zip(wanted, y.type.shape, strict=True))
    return ctx.emit(node, Pad((0,) * y.type.rank, more), y) if any(more) else y


def _average_pool(ctx: Context, node: Node) -> Converted:
    windows = _windows(ctx, node)
    x = ctx.value(node, 0)
    if len(windows) < 3 and all(w.dilation == 1 for w in windows) and not _hangs_over(node, windows):
        counts_pads = bool(node.get_int("count_include_pad", 0))

        def pool(x: Value, rows: Sliding, columns: Sliding) -> Value:
            pads = (rows.low, columns.low, rows.high, columns.high)
            kernel, strides = (rows.kernel, columns.kernel), (rows.stride, columns.stride)
            return ctx.emit(node, AvgPool2d(kernel, strides, pads, counts_pads), x)

        return _separably(ctx, node, x, windows, pool)
    counts = [_counts(node, window, given) for window, given in zip(windows, _given(ctx, node), strict=True)]
    divisor = reduce(np.multiply.outer, counts).astype(x.type.dtype.numpy)
    return ctx.emit(node, Div(), _sums(ctx, node, x, windows), ctx.constant(node, divisor))


def _given(ctx: Context, node: Node) -> list[Sliding]:
    """The windows before `ceil_mode` lets the last one hang over."""
    return read_sliding(node, ctx.type(node, 0).shape[2:], node.get_ints("kernel_shape"))


def _hangs_over(node: Node, windows: Sequence[Sliding]) -> bool:
    """Whether padding counts, but not what `ceil_mode` adds to it."""
    return bool(node.get_int("ceil_mode", 0)) and bool(node.get_int("count_include_pad", 0))


def _counts(node: Node, window: Sliding, given: Sliding) -> np.ndarray:
    """How many elements each window along an axis averages over."""
    bounded(window.output * window.kernel)
    taps = window.taps()
    if node.get_int("count_include_pad", 0):
        return ((taps >= -given.low) & (taps < given.size + given.high)).sum(1)
    counts = ((taps >= 0) & (taps < given.size)).sum(1)
    if not counts.all():
        raise Unsupported("a window lies wholly in the padding")
    return counts


def _sums(ctx: Context, node: Node, x: Value, windows: Sequence[Sliding]) -> Value:
    """Sums over windows: a depthwise convolution with ones."""

    def pool(x: Value, rows: Sliding, columns: Sliding) -> Value:
        channels = x.type.shape[1]
        ones = ctx.constant(node, np.ones((channels, 1, rows.kernel, columns.kernel), x.type.dtype.numpy))
        pads = (rows.low, columns.low, rows.high, columns.high)
        strides, dilations = (rows.stride, columns.stride), (rows.dilation, columns.dilation)
        return ctx.emit(node, Conv2d(strides, pads, dilations, channels), x, ones)

    return _separably(ctx, node, x, windows, pool)


def _separably(ctx: Context, node: Node, x: Value, windows: Sequence[Sliding], pool) -> Value:  # noqa: ANN001
    """`pool` over pairs of axes of x[N, C, ...]: one axis is a row, three are two and one."""
    one = Sliding(1, 1, 1, 1, 0, 0)
    n, c, *size = x.type.shape
    if len(windows) == 2:
        return pool(x, *windows)
    if len(windows) == 1:
        y = pool(ctx.emit(node, Reshape((n, c, 1, *size)), x), one, windows[0])
        return ctx.emit(node, Reshape((n, c, windows[0].output)), y)
    depth, rows, columns = windows
    y = pool(ctx.emit(node, Reshape((n, c * size[0], *size[1:])), x), rows, columns)
    plane = rows.output * columns.output
    y = pool(ctx.emit(node, Reshape((n, c, size[0], plane)), y), depth, Sliding(plane, 1, 1, 1, 0, 0))
    return ctx.emit(node, Reshape((n, c, depth.output, rows.output, columns.output)), y)


def _lp_pool(ctx: Context, node: Node) -> Converted:
    """(sum |x|^p)^(1/p) over windows."""
    p = node.get_int("p", 2)
    y = _sums(ctx, node, _powers(ctx, node, ctx.value(node, 0), p), _windows(ctx, node))
    return _root(ctx, node, y, p)


def _global_lp_pool(ctx: Context, node: Node) -> Converted:
    p, x = node.get_int("p", 2), ctx.value(node, 0)
    if x.type.rank < 3:
        raise Unsupported(f"an input of rank {x.type.rank} has no spatial axes")
    y = ctx.emit(node, ReduceSum(tuple(range(2, x.type.rank)), True), _powers(ctx, node, x, p))
    return _root(ctx, node, y, p)


def _powers(ctx: Context, node: Node, x: Value, p: int) -> Value:
    if p < 1:
        raise Unsupported(f"p is {p}; it must be positive")
    if p == 2:
        return ctx.emit(node, Mul(), x, x)
    x = ctx.emit(node, Abs(), x)
    return x if p == 1 else ctx.emit(node, Pow(), x, ctx.number(node, p, x))


def _root(ctx: Context, node: Node, x: Value, p: int) -> Value:
    if p == 2:
        return ctx.emit(node, Sqrt(), x)
    return x if p == 1 else ctx.emit(node, Pow(), x, ctx.number(node, 1 / p, x))


def _global_pool(kind: type[Reduction], ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    if x.type.rank < 3:
        raise Unsupported(f"an input of rank {x.type.rank} has no spatial axes")
    return ctx.emit(node, kind(tuple(range(2, x.type.rank)), True), x)


def _lrn(ctx: Context, node: Node) -> Converted:
    """x / (bias + alpha / size * sum of squares over neighbouring channels)^beta."""
    x, size = ctx.value(node, 0), node.get_int("size")
    if x.type.rank < 3 or size < 1:
        raise Unsupported(f"an input of rank {x.type.rank} and a size of {size}")
    n, c, *rest = x.type.shape
    low = (size - 1) // 2
    squares = ctx.emit(node, Reshape((n, 1, c, math.prod(rest))), ctx.emit(node, Mul(), x, x))
    op = AvgPool2d((size, 1), (1, 1), (low, 0, size - 1 - low, 0), True)
    means = ctx.emit(node, Reshape(x.type.shape), ctx.emit(node, op, squares))
    scaled = ctx.emit(node, Mul(), means, ctx.number(node, node.get_float("alpha", 1e-4), x))
    base = ctx.emit(node, Add(), scaled, ctx.number(node, node.get_float("bias", 1.0), x))
    return ctx.emit(node, Div(), x, ctx.emit(node, Pow(), base, ctx.number(node, node.get_float("beta", 0.75), x)))


POOLS = {
    "MaxPool": _max_pool,
    "MaxUnpool": _max_unpool,
    "AveragePool": _average_pool,
    "LpPool": _lp_pool,
    "GlobalAveragePool": partial(_global_pool, ReduceMean),
    "GlobalMaxPool": partial(_global_pool, ReduceMax),
    "GlobalLpPool": _global_lp_pool,
    "LRN": _lrn,
}
