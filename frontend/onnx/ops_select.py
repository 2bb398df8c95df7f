"""Operators that choose by position: triangles, one-hot rows, maxima as ones, determinants."""

from __future__ import annotations

import itertools
import math
from functools import partial, reduce

import numpy as np

from edgec.frontend.onnx.arguments import normal_axis
from edgec.frontend.onnx.context import Context, Converted, Known
from edgec.frontend.onnx.model import Node, Unsupported
from edgec.frontend.onnx.ops_indexing import bounded
from edgec.frontend.onnx.ops_logic import cast
from edgec.graph.ir import Value
from edgec.graph.ops.abs import Abs
from edgec.graph.ops.add import Add
from edgec.graph.ops.arg_max import ArgMax
from edgec.graph.ops.base import Op
from edgec.graph.ops.div import Div
from edgec.graph.ops.equal import Equal
from edgec.graph.ops.gather import Gather
from edgec.graph.ops.less import Less
from edgec.graph.ops.less_equal import LessEqual
from edgec.graph.ops.maximum import Maximum
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.ops.relu import Relu
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.slice import Slice
from edgec.graph.ops.sqrt import Sqrt
from edgec.graph.ops.sub import Sub
from edgec.graph.ops.where import Where
from edgec.graph.types import DType

_MAX_DETERMINANT = 4


def _trilu(ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    if x.type.rank < 2:
        raise Unsupported(f"an input of rank {x.type.rank} has no triangles")
    rows, columns = x.type.shape[-2:]
    bounded(rows * columns)
    distance = np.arange(columns) - np.arange(rows)[:, None]
    diagonal = ctx.entry(node, 1) if ctx.has(node, 1) else Known(np.array(0))
    if isinstance(diagonal, Value):
        sides = cast(ctx, node, diagonal, DType.I64), ctx.constant(node, distance)
        kept = ctx.emit(node, LessEqual(), *(sides if node.get_int("upper", 1) else sides[::-1]))
    else:
        k = int(ctx.known_scalar(node, 1, "the diagonal")) if ctx.has(node, 1) else 0
        kept = ctx.constant(node, distance >= k if node.get_int("upper", 1) else distance <= k)
    zero = ctx.constant(node, np.zeros((), x.type.dtype.numpy))
    return ctx.emit(node, Where(), kept, x, zero)


def _one_hot(ctx: Context, node: Node) -> Converted:
    """on where the new axis' position is the index, else off; an index out of range has no on."""
    indices, values = ctx.value(node, 0), ctx.value(node, 2)
    depth = int(ctx.known_scalar(node, 1, "the depth"))
    if depth < 1 or values.type.shape != (2,):
        raise Unsupported(f"depth {depth} and values of shape {list(values.type.shape)}")
    bounded(depth)
    rank = indices.type.rank
    axis = normal_axis(node.get_int("axis", -1), rank + 1)
    shape = indices.type.shape
    indices = cast(ctx, node, indices, DType.I64)
    wrapped = ctx.emit(node, Add(), indices, ctx.number(node, depth, indices))
    negative = ctx.emit(node, Less(), indices, ctx.number(node, 0, indices))
    indices = ctx.emit(node, Where(), negative, wrapped, indices)
    indices = ctx.emit(node, Reshape((*shape[:axis], 1, *shape[axis:])), indices)
    positions = np.arange(depth).reshape(-1, *(1,) * (rank - axis))
    hit = ctx.emit(node, Equal(), indices, ctx.constant(node, positions))
    off, on = (_element(ctx, node, values, index) for index in (0, 1))
    return ctx.emit(node, Where(), hit, on, off)


def _element(ctx: Context, node: Node, values: Value, index: int) -> Value:
    return ctx.emit(node, Gather(0), values, ctx.constant(node, np.array(index, np.int64)))


def _hardmax(ctx: Context, node: Node) -> Converted:
    """1 at the first maximum along the axis (before opset 13: of all axes from there on)."""
    x = ctx.value(node, 0)
    axis = normal_axis(node.get_int("axis", -1 if node.opset >= 13 else 1), x.type.rank)
    shape = x.type.shape
    if node.opset < 13:
        x, axis = ctx.emit(node, Reshape((math.prod(shape[:axis]), math.prod(shape[axis:]))), x), 1
    place = ctx.emit(node, ArgMax(axis, keepdims=True), x)
    positions = np.arange(x.type.shape[axis]).reshape(-1, *(1,) * (x.type.rank - 1 - axis))
    hit = ctx.emit(node, Equal(), place, ctx.constant(node, positions))
    y = cast(ctx, node, hit, x.type.dtype)
    return y if y.type.shape == shape else ctx.emit(node, Reshape(shape), y)


def _lp_norm(ctx: Context, node: Node) -> Converted:
    """x / ||x|| along the axis; 0 where the norm is 0."""
    x = ctx.value(node, 0)
    axis, p = normal_axis(node.get_int("axis", -1), x.type.rank), node.get_int("p", 2)
    if p not in (1, 2):
        raise Unsupported(f"p is {p}; 1 and 2 are supported")
    total: Op = ReduceSum((axis,), keepdims=True)
    if p == 1:
        norm = ctx.emit(node, total, ctx.emit(node, Abs(), x))
    else:
        squares = ctx.emit(node, total, ctx.emit(node, Mul(), x, x))
        norm = ctx.emit(node, Sqrt(), ctx.emit(node, Relu(), squares))  # whose gradient is 0 where all is 0
    smallest = ctx.number(node, float(np.finfo(np.float32).tiny), x)
    return ctx.emit(node, Div(), x, ctx.emit(node, Maximum(), norm, smallest))


def _det(ctx: Context, node: Node) -> Converted:
    """Determinants of small matrices x[..., n, n]: the sum over permutations."""
    x = ctx.value(node, 0)
    n = x.type.shape[-1] if x.type.rank >= 2 else 0
    if x.type.shape[-2:] != (n, n) or not 1 <= n <= _MAX_DETERMINANT:
        raise Unsupported(f"determinants of {x.type}; square matrices of up to {_MAX_DETERMINANT} rows are supported")
    outer = x.type.shape[:-2]
    rows = ctx.emit(node, Reshape((*outer, n * n)), x)
    cells = [ctx.emit(node, Slice.along(len(outer), i, i + 1, rows.type), rows) for i in range(n * n)]
    total = None
    for columns in itertools.permutations(range(n)):
        product = reduce(partial(ctx.emit, node, Mul()), (cells[row * n + c] for row, c in enumerate(columns)))
        swaps = sum(a > b for a, b in itertools.combinations(columns, 2))
        total = product if total is None else ctx.emit(node, Sub() if swaps % 2 else Add(), total, product)
    assert total is not None  # the identity comes first
    return ctx.emit(node, Reshape(outer), total)


SELECTIONS = {
    "Trilu": _trilu,
    "OneHot": _one_hot,
    "Hardmax": _hardmax,
    "LpNormalization": _lp_norm,
    "Det": _det,
}
