"""Softmax and cross entropy with class indices, averaged over the batch (torch's `cross_entropy`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.errors import UserError
from edgec.graph.ops.add import Add
from edgec.graph.ops.base import GradientBuilder, Op, Tolerance, type_error
from edgec.graph.ops.checks import operands, require_float
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.ops.softmax_cross_entropy_grad import SoftmaxCrossEntropyGrad
from edgec.graph.ops.sub import Sub
from edgec.graph.types import DType, TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Op):
    """logits[N,C], labels i64[N] -> loss[], the mean of -log p[label]; probabilities[N,C], the softmax."""

    name: ClassVar[str] = "softmax_cross_entropy"
    tolerance: ClassVar[Tolerance] = Tolerance.ACCUMULATION

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        logits, labels = operands(self, inputs, 2)
        require_float(self, logits)
        if logits.rank != 2 or 0 in logits.shape:
            raise type_error(self, "logits must be [N,C]", *inputs, hint="flatten the model's output to two axes")
        if labels != TensorType(DType.I64, logits.shape[:1]):
            raise type_error(self, f"labels must be i64[{logits.shape[0]}]", *inputs)
        return logits.with_shape(()), logits

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        logits, labels = inputs
        check_labels(labels, logits.shape[1])
        shifted = logits - logits.max(axis=1, keepdims=True)
        exponentials = np.exp(shifted)
        total = exponentials.sum(axis=1, keepdims=True)
        losses = np.log(total[:, 0]) - shifted[np.arange(len(labels)), labels]
        return np.asarray(losses.mean(), logits.dtype), exponentials / total

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        (_, labels), (_, p), (dloss, dp) = inputs, outputs, gradients
        dlogits = None
        if dloss is not None:
            dlogits = build.emit(SoftmaxCrossEntropyGrad(), p, labels, dloss)
        if dp is not None:  # the softmax's own gradient: p * (dp - sum(p * dp))
            inner = build.emit(ReduceSum((1,), keepdims=True), build.emit(Mul(), p, dp))
            through = build.emit(Mul(), p, build.emit(Sub(), dp, inner))
            dlogits = through if dlogits is None else build.emit(Add(), dlogits, through)
        return dlogits, None


def check_labels(labels: np.ndarray, classes: int) -> None:
    """UserError E0604 unless every label names a class: numpy would read a negative one from the end."""
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise UserError("E0604", f"label {wrong[0]} is outside 0..{classes - 1}")
