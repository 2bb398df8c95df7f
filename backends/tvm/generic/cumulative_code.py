"""Cumulative sums and products, and the gradient of products: one run along the axis."""

from __future__ import annotations

from collections.abc import Sequence

from edgec.backends.tvm.builder import Index, bind
from edgec.backends.tvm.generic.loops_code import Variable, loops
from edgec.backends.tvm.generic.tensor_code import Tensor, unravel
from edgec.graph.ops.cum_prod import CumProd
from edgec.graph.ops.cum_prod_grad import CumProdGrad
from edgec.graph.ops.cum_sum import CumSum


def cumulative(op: CumSum | CumProd, inputs: Sequence[Tensor], outputs: Sequence[Tensor | None], row: Index) -> None:
    (x,), (y,) = inputs, outputs
    others = unravel(row, x.shape[: op.axis] + x.shape[op.axis + 1 :])
    sums = isinstance(op, CumSum)
    extent = x.shape[op.axis]
    total = Variable(0 if sums else 1, x.dtype)
    with loops(extent) as (step,):
        i = extent - 1 - step if op.reverse else step
        at = [*others[: op.axis], i, *others[op.axis :]]
        value = bind(x.load(at))
        if op.exclusive:
            y.store(at, total.value)
        total.set(total.value + value if sums else total.value * value)
        if not op.exclusive:
            y.store(at, total.value)


def cum_prod_grad(op: CumProdGrad, inputs: Sequence[Tensor], outputs: Sequence[Tensor | None], row: Index) -> None:
    """There with the products of what stands before each factor, and back with what follows from it."""
    (dy, x), (dx,) = inputs, outputs
    others = unravel(row, x.shape[: op.axis] + x.shape[op.axis + 1 :])
    extent = x.shape[op.axis]

    def at(i: Index) -> list[Index]:
        return [*others[: op.axis], extent - 1 - i if op.reverse else i, *others[op.axis :]]

    before = Variable(1.0)
    with loops(extent) as (i,):
        dx.store(at(i), before.value)
        before.set(before.value * x.load(at(i)))
    rest = Variable(0.0)
    with loops(extent) as (step,):
        here = at(extent - 1 - step)
        if not op.exclusive:
            rest.add(dy.load(here))
        dx.store(here, dx.load(here) * rest.value)
        rest.set(rest.value * x.load(here))
        if op.exclusive:
            rest.add(dy.load(here))
