"""One element of a reduction: a serial walk over the reduced axes in row-major order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from edgec.backends.tvm._tvm import Expr
from edgec.backends.tvm.builder import Index, constant, larger, select, smaller
from edgec.backends.tvm.generic.loops_code import Variable, divided
from edgec.backends.tvm.generic.tensor_code import Tensor
from edgec.graph.ops.reduce_max import ReduceMax
from edgec.graph.ops.reduce_mean import ReduceMean
from edgec.graph.ops.reduce_min import ReduceMin
from edgec.graph.ops.reduce_prod import ReduceProd
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.ops.reduction import Reduction


def reduce_sum(op: ReduceSum, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    return (_fold(op, inputs[0], index, 0.0, lambda total, x: total + x),)


def reduce_mean(op: ReduceMean, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    total = _fold(op, inputs[0], index, 0.0, lambda total, x: total + x)
    return (total / constant(float(math.prod(inputs[0].shape[axis] for axis in op.axes))),)


def reduce_max(op: ReduceMax, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    (x,) = inputs
    if x.dtype.is_float:
        return (_fold(op, x, index, -math.inf, larger),)
    lowest = int(np.iinfo(x.dtype.numpy).min)
    return (_fold(op, x, index, lowest, lambda best, value: select(value > best, value, best)),)


def reduce_min(op: ReduceMin, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    (x,) = inputs
    if x.dtype.is_float:
        return (_fold(op, x, index, math.inf, smaller),)
    highest = int(np.iinfo(x.dtype.numpy).max)
    return (_fold(op, x, index, highest, lambda best, value: select(value < best, value, best)),)


def reduce_prod(op: ReduceProd, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    return (_fold(op, inputs[0], index, 1, lambda product, x: product * x),)


def _fold(
    op: Reduction, x: Tensor, index: Sequence[Index], initial: float, combine: Callable[[Expr, Expr], Expr]
) -> Expr:
    total = Variable(initial, x.dtype)
    kept = list(index)
    if op.keepdims:
        kept = [i for axis, i in enumerate(index) if axis not in op.axes]
    with divided(*(x.shape[axis] for axis in op.axes)) as reduced:
        remaining, inner = iter(kept), iter(reduced)
        source = [next(inner) if axis in op.axes else next(remaining) for axis in range(len(x.shape))]
        total.set(combine(total.value, x.load(source)))
    return total.combined(combine)
