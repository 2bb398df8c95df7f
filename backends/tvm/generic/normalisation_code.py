"""Layer and root mean square normalisation: one row."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from edgec.backends.tvm._tvm import Expr
from edgec.backends.tvm.builder import Index, bind, constant
from edgec.backends.tvm.functions import rsqrt
from edgec.backends.tvm.generic.loops_code import Variable, loops
from edgec.backends.tvm.generic.tensor_code import Tensor, unravel
from edgec.graph.ops.layer_norm import LayerNorm
from edgec.graph.ops.rms_norm import RmsNorm


def layer_norm(op: LayerNorm, inputs: Sequence[Tensor], outputs: Sequence[Tensor | None], row: Index) -> None:
    x, *parts = inputs
    y, mean_out, inv_std_out = (*outputs, None, None)[:3]
    others, rest = unravel(row, x.shape[: op.axis]), x.shape[op.axis :]
    mean = bind(_mean(rest, lambda at: x.load([*others, *at])))

    def square(at: list[Index]) -> Expr:
        centred = bind(x.load([*others, *at]) - mean)
        return centred * centred

    # The sum of squares around the mean: the difference of two moments would lose all digits far from zero.
    inv_std = rsqrt(_mean(rest, square) + constant(op.epsilon))
    if y is not None:
        with loops(*rest) as at:
            value = (x.load([*others, *at]) - mean) * inv_std
            for index, part in enumerate(parts):
                value = value * part.load(at) if index == 0 else value + part.load(at)
            y.store([*others, *at], value)
    if mean_out is not None:
        mean_out.store(others, mean)
    if inv_std_out is not None:
        inv_std_out.store(others, inv_std)


def rms_norm(op: RmsNorm, inputs: Sequence[Tensor], outputs: Sequence[Tensor | None], row: Index) -> None:
    x, *scale = inputs
    y, inv_rms_out = (*outputs, None)[:2]
    others, rest = unravel(row, x.shape[: op.axis]), x.shape[op.axis :]

    def square(at: list[Index]) -> Expr:
        value = bind(x.load([*others, *at]))
        return value * value

    inv_rms = rsqrt(_mean(rest, square) + constant(op.epsilon))
    if y is not None:
        with loops(*rest) as at:
            value = x.load([*others, *at]) * inv_rms
            y.store([*others, *at], value * scale[0].load(at) if scale else value)
    if inv_rms_out is not None:
        inv_rms_out.store(others, inv_rms)


def _mean(shape: tuple[int, ...], element: Callable[[list[Index]], Expr]) -> Expr:
    total = Variable(0.0)
    with loops(*shape) as at:
        total.add(element(at))
    return total.value / constant(float(math.prod(shape)))
