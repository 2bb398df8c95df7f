"""Normalisations and what their gradients sum up: one row, one channel or one result."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from edgec.backends.tvm._tvm import Expr
from edgec.backends.tvm.builder import Index, bind, constant, select
from edgec.backends.tvm.functions import rsqrt, squared
from edgec.backends.tvm.generic.loops_code import Variable, divided, once
from edgec.backends.tvm.generic.tensor_code import Tensor, unravel
from edgec.graph.ops.batch_norm_train import BatchNormTrain
from edgec.graph.ops.layer_norm import LayerNorm
from edgec.graph.ops.layer_norm_grad import LayerNormGrad
from edgec.graph.ops.moments import Moments
from edgec.graph.ops.norm_param_grad import NormParamGrad
from edgec.graph.ops.rms_norm import RmsNorm
from edgec.graph.ops.rms_norm_grad import RmsNormGrad


def layer_norm(op: LayerNorm, inputs: Sequence[Tensor], outputs: Sequence[Tensor | None], row: Index) -> None:
    x, *parts = inputs
    y, mean_out, inv_std_out = (*outputs, None, None)[:3]
    others, rest = unravel(row, x.shape[: op.axis]), x.shape[op.axis :]
    mean, variance = _moments(rest, lambda at: x.load([*others, *at]))
    inv_std = rsqrt(variance + constant(op.epsilon))
    if y is not None:
        with divided(*rest) as at:
            value = (x.load([*others, *at]) - mean) * inv_std
            for index, part in enumerate(parts):
                value = value * part.load(at) if index == 0 else value + part.load(at)
            y.store([*others, *at], value)
    _store_once(others, (mean_out, mean), (inv_std_out, inv_std))


def rms_norm(op: RmsNorm, inputs: Sequence[Tensor], outputs: Sequence[Tensor | None], row: Index) -> None:
    x, *scale = inputs
    y, inv_rms_out = (*outputs, None)[:2]
    others, rest = unravel(row, x.shape[: op.axis]), x.shape[op.axis :]

    def square(at: list[Index]) -> Expr:
        return squared(x.load([*others, *at]))

    inv_rms = rsqrt(_mean(rest, square) + constant(op.epsilon))
    if y is not None:
        with divided(*rest) as at:
            value = x.load([*others, *at]) * inv_rms
            y.store([*others, *at], value * scale[0].load(at) if scale else value)
    _store_once(others, (inv_rms_out, inv_rms))


def row_norm_grad(
    op: LayerNormGrad | RmsNormGrad, inputs: Sequence[Tensor], outputs: Sequence[Tensor | None], row: Index
) -> None:
    dy, x, *rest = inputs
    (dx,) = outputs
    others, shape = unravel(row, x.shape[: op.axis]), x.shape[op.axis :]
    mean = rest.pop(0).load(others) if isinstance(op, LayerNormGrad) else constant(0.0)
    inverse, *scale = rest
    mean, inverse = bind(mean), bind(inverse.load(others))

    def parts(at: list[Index]) -> tuple[Expr, Expr]:
        """dy * gamma, and the normalised x."""
        g = dy.load([*others, *at])
        g = g * scale[0].load(at) if scale else g
        return bind(g), bind((x.load([*others, *at]) - mean) * inverse)

    total, along = Variable(0.0), Variable(0.0)
    with divided(*shape) as at:
        g, normal = parts(at)
        total.add(g)
        along.add(g * normal)
    count = constant(float(math.prod(shape)))
    level = bind(total.total / count) if isinstance(op, LayerNormGrad) else constant(0.0)
    slope = bind(along.total / count)
    with divided(*shape) as at:
        g, normal = parts(at)
        dx.store([*others, *at], inverse * (g - level - normal * slope))


def moments(op: Moments, inputs: Sequence[Tensor], outputs: Sequence[Tensor | None], row: Index) -> None:
    x, *weights = inputs
    mean_out, variance_out = (*outputs, None)[:2]
    kept, at = _around(x.shape, op.axes, row)
    mean, variance = _statistics(op.axes, x, weights, at)
    _store_once(kept, (mean_out, mean), (variance_out, variance))


def batch_norm_train(
    op: BatchNormTrain, inputs: Sequence[Tensor], outputs: Sequence[Tensor | None], row: Index
) -> None:
    """One channel."""
    x, gamma, beta, *weights = inputs
    y, *statistics = (*outputs, None, None)[:3]
    axes = op.axes(x.type)
    kept, at = _around(x.shape, axes, row)
    rest = tuple(x.shape[axis] for axis in axes)
    mean, variance = _statistics(axes, x, weights, at)
    if y is not None:
        scale = bind(rsqrt(variance + constant(op.epsilon)) * gamma.load(kept))
        with divided(*rest) as inner:
            y.store(at(inner), (x.load(at(inner)) - mean) * scale + beta.load(kept))
    _store_once(kept, *zip(statistics, (mean, variance), strict=True))


def norm_param_grad(op: NormParamGrad, inputs: Sequence[Tensor], outputs: Sequence[Tensor | None], row: Index) -> None:
    dy, x, mean, inv_std = inputs
    kept, at = _around(x.shape, op.axes, row)
    scale, shift = Variable(0.0), Variable(0.0)
    with divided(*(x.shape[axis] for axis in op.axes)) as inner:
        index = at(inner)
        gradient = bind(dy.load(index))
        shift.add(gradient)
        scale.add(gradient * ((x.load(index) - mean.load_broadcast(index)) * inv_std.load_broadcast(index)))
    _store_once(kept, *zip((*outputs, None), (scale.total, shift.total), strict=False))


def _store_once(index: Sequence[Index], *results: tuple[Tensor | None, Expr]) -> None:
    """The results of a row that are wanted."""
    with once():
        for result, value in results:
            if result is not None:
                result.store(index, value)


def _around(
    shape: tuple[int, ...], axes: tuple[int, ...], row: Index
) -> tuple[list[Index], Callable[[Sequence[Index]], list[Index]]]:
    """The index of result `row` of a reduction over `axes`, and that of the operand with the reduced part added."""
    kept = unravel(row, tuple(n for axis, n in enumerate(shape) if axis not in axes))

    def at(inner: Sequence[Index]) -> list[Index]:
        outside, inside = iter(kept), iter(inner)
        return [next(inside) if axis in axes else next(outside) for axis in range(len(shape))]

    return kept, at


def _statistics(
    axes: tuple[int, ...], x: Tensor, weights: Sequence[Tensor], at: Callable[[Sequence[Index]], list[Index]]
) -> tuple[Expr, Expr]:
    """Mean and variance over `axes`, weighted where there are weights."""
    count = Moments(axes).sharing(x.shape, *(share.shape for share in weights))

    def counted(value: Expr, inner: Sequence[Index]) -> Expr:
        for share in weights:
            weight = bind(share.load_broadcast(at(inner)))
            value = select(weight == constant(0.0), constant(0.0), value * weight)
        return value

    return _moments(tuple(x.shape[axis] for axis in axes), lambda inner: x.load(at(inner)), counted, count)


def _moments(
    shape: tuple[int, ...],
    element: Callable[[Sequence[Index]], Expr],
    counted: Callable[[Expr, Sequence[Index]], Expr] = lambda value, at: value,
    count: int | None = None,
) -> tuple[Expr, Expr]:
    """Mean and variance: the sum of squares around the mean, for the difference of two moments would lose all digits
    far from zero. `counted` is how much of a value an index adds to a sum, which `count` divides.
    """
    mean = bind(_mean(shape, lambda at: counted(element(at), at), count))

    def square(at: list[Index]) -> Expr:
        return counted(squared(element(at) - mean), at)

    return mean, bind(_mean(shape, square, count))


def _mean(shape: tuple[int, ...], element: Callable[[list[Index]], Expr], count: int | None = None) -> Expr:
    total = Variable(0.0)
    with divided(*shape) as at:
        total.add(element(at))
    return total.total / constant(float(math.prod(shape) if count is None else count))
