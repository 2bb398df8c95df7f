"""Gradient of the mean softmax cross entropy with respect to its logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import Op, type_error
from edgec.graph.ops.checks import operands, require_float
from edgec.graph.types import DType, TensorType


@dataclass(frozen=True)
class SoftmaxCrossEntropyGrad(Op):
    """probabilities p[N,C], labels i64[N], dloss[] -> dlogits[N,C] = (p - onehot(labels)) * dloss / N."""

    name: ClassVar[str] = "softmax_cross_entropy_grad"
    no_gradient: ClassVar[str | None] = "gradients of gradients are not derived"

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        p, labels, dloss = operands(self, inputs, 3)
        require_float(self, p)
        if p.rank != 2 or labels != TensorType(DType.I64, p.shape[:1]) or dloss != p.with_shape(()):
            raise type_error(self, "takes probabilities[N,C], labels i64[N] and a scalar of their dtype", *inputs)
        return (p,)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        p, labels, dloss = inputs
        difference = p.copy()
        difference[np.arange(len(labels)), labels] -= 1
        return (difference * (dloss / p.dtype.type(len(labels))),)
