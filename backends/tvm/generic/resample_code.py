"""One element of a resampled axis."""

from __future__ import annotations

from collections.abc import Sequence

from edgec.backends.tvm._tvm import Expr
from edgec.backends.tvm.builder import Index
from edgec.backends.tvm.generic.indexing_code import read_index
from edgec.backends.tvm.generic.loops_code import Variable, loops
from edgec.backends.tvm.generic.tensor_code import Tensor
from edgec.graph.ops.resample import Resample


def resample(op: Resample, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    x, indices, weights = inputs
    i = index[op.axis]
    total = Variable(0.0)
    with loops(indices.shape[1]) as (t,):
        picked = read_index(indices, [i, t], x.shape[op.axis])
        total.add(weights.load([i, t]) * x.load([*index[: op.axis], picked, *index[op.axis + 1 :]]))
    return (total.value,)
