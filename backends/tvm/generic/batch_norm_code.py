"""One element of batch norm with given statistics."""

from __future__ import annotations

from collections.abc import Sequence

from edgec.backends.tvm._tvm import Expr
from edgec.backends.tvm.builder import Index, bind, constant
from edgec.backends.tvm.functions import rsqrt
from edgec.backends.tvm.generic.tensor_code import Tensor
from edgec.graph.ops.batch_norm import BatchNorm


def batch_norm(op: BatchNorm, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    x, gamma, beta, mean, variance = inputs
    channel = [index[1]]
    inverse = rsqrt(bind(variance.load(channel) + constant(op.epsilon)))
    return ((x.load(index) - mean.load(channel)) * inverse * gamma.load(channel) + beta.load(channel),)
