"""Gathers, element by element, and scatters, which run as one task: updates of one element have an order."""

from __future__ import annotations

from collections.abc import Sequence

from edgec.backends.tvm._tvm import Expr, T, tirx
from edgec.backends.tvm.builder import Index, bind, constant, larger, select, smaller
from edgec.backends.tvm.generic.loops_code import loops
from edgec.backends.tvm.generic.tensor_code import Tensor, unravel
from edgec.graph.ops.gather import Gather
from edgec.graph.ops.gather_elements import GatherElements
from edgec.graph.ops.gather_nd import GatherNd
from edgec.graph.ops.gather_nd_grad import GatherNdGrad
from edgec.graph.ops.scatter_elements import ScatterElements
from edgec.graph.ops.scatter_nd import ScatterNd


def read_index(indices: Tensor, at: Sequence[Index], extent: int) -> Expr:
    return moved_inside(indices.load(at), extent)


def moved_inside(i: Expr, extent: int) -> Expr:
    """A run-time index into an axis of `extent`: from the end if negative, and moved inside if it lies outside."""
    i = bind(i)
    i = bind(select(i < tirx.const(0, i.ty.dtype), i + tirx.const(extent, i.ty.dtype), i))
    # Compared before it is narrowed: an i64 may hold anything.
    low, high = tirx.const(0, i.ty.dtype), tirx.const(extent - 1, i.ty.dtype)
    return bind(tirx.Cast("int32", T.min(T.max(i, low), high)))


def gather(op: Gather, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    x, indices = inputs
    end = op.axis + len(indices.shape)
    picked = read_index(indices, index[op.axis : end], x.shape[op.axis])
    return (x.load([*index[: op.axis], picked, *index[end:]]),)


def gather_elements(op: GatherElements, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    x, indices = inputs
    picked = read_index(indices, index, x.shape[op.axis])
    return (x.load([*index[: op.axis], picked, *index[op.axis + 1 :]]),)


def gather_nd(op: GatherNd, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    x, indices = inputs
    batch, depth, leading = op.batch_dims, indices.shape[-1], len(indices.shape) - 1
    picked = [read_index(indices, [*index[:leading], k], x.shape[batch + k]) for k in range(depth)]
    return (x.load([*index[:batch], *picked, *index[leading:]]),)


def scatter_elements(
    op: ScatterElements, inputs: Sequence[Tensor], outputs: Sequence[Tensor | None], row: Index
) -> None:
    x, indices, updates = inputs
    (y,) = outputs
    _copy(x, y)
    with loops(*indices.shape) as at:
        picked = read_index(indices, at, x.shape[op.axis])
        _update(y, [*at[: op.axis], picked, *at[op.axis + 1 :]], updates.load(at), op.reduction)


def scatter_nd(op: ScatterNd, inputs: Sequence[Tensor], outputs: Sequence[Tensor | None], row: Index) -> None:
    x, indices, updates = inputs
    (y,) = outputs
    depth = indices.shape[-1]
    _copy(x, y)
    with loops(*indices.shape[:-1]) as at:
        picked = [read_index(indices, [*at, k], x.shape[k]) for k in range(depth)]
        with loops(*x.shape[depth:]) as rest:
            _update(y, [*picked, *rest], updates.load([*at, *rest]), op.reduction)


def gather_nd_grad(op: GatherNdGrad, inputs: Sequence[Tensor], outputs: Sequence[Tensor | None], row: Index) -> None:
    """One element of the batch."""
    (dy, indices), (dx,) = inputs, outputs
    batch, depth = op.batch_dims, indices.shape[-1]
    first = unravel(row, op.shape[:batch])
    with loops(*op.shape[batch:]) as at:
        dx.store([*first, *at], constant(0.0))
    with loops(*indices.shape[batch:-1]) as at:
        picked = [read_index(indices, [*first, *at, k], op.shape[batch + k]) for k in range(depth)]
        with loops(*op.shape[batch + depth :]) as rest:
            _update(dx, [*first, *picked, *rest], dy.load([*first, *at, *rest]), "add")


def _copy(x: Tensor, y: Tensor) -> None:
    with loops(*x.shape) as at:
        y.store(at, x.load(at))


def _update(y: Tensor, at: Sequence[Index], value: Expr, reduction: str) -> None:
    value = bind(value)
    old = None if reduction == "none" else bind(y.load(at))
    match reduction:
        case "add":
            value = old + value
        case "mul":
            value = old * value
        case "min":
            value = smaller(old, value) if y.dtype.is_float else T.min(old, value)
        case "max":
            value = larger(old, value) if y.dtype.is_float else T.max(old, value)
    y.store(at, value)
