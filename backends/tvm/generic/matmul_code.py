"""One element of a matrix product."""

from __future__ import annotations

from collections.abc import Sequence

from edgec.backends.tvm._tvm import Expr
from edgec.backends.tvm.builder import Index
from edgec.backends.tvm.generic.loops_code import Variable, divided
from edgec.backends.tvm.generic.tensor_code import Tensor
from edgec.graph.ops.matmul import MatMul


def matmul(op: MatMul, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    """y[..., m, n]: products added for k = 0, 1, ...; leading axes broadcast."""
    a, b = inputs
    *batch, m, n = index
    depth = a.shape[-2] if op.transpose_a else a.shape[-1]
    total = Variable(0, a.dtype)
    with divided(depth) as (k,):
        left = a.load_broadcast([*batch, *((k, m) if op.transpose_a else (m, k))])
        right = b.load_broadcast([*batch, *((n, k) if op.transpose_b else (k, n))])
        total.add(left * right)
    return (total.total,)
