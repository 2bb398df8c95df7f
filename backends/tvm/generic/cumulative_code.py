"""Cumulative sums and products: one run along the axis."""

from __future__ import annotations

from collections.abc import Sequence

from edgec.backends.tvm.builder import Index, bind
from edgec.backends.tvm.generic.loops_code import Variable, loops
from edgec.backends.tvm.generic.tensor_code import Tensor, unravel
from edgec.graph.ops.cum_prod import CumProd
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
