"""Softmax and cross entropy with a weight for every class of every row: torch's `cross_entropy`, before its mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder, Op, Tolerance, type_error
from edgec.graph.ops.checks import operands, require_float, require_same_type
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reshape import Reshape
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Op):
    """logits[N,C], targets t[N,C] -> losses[N], -sum(t * log p) of each row with p its softmax; slopes[N,C], what the
    gradient of the row's loss is: p * sum(t) - t.

    Targets need not add up to 1: class indices, label smoothing, class weights, ignored and padded rows are all a
    matter of what they hold. A target of 0 counts nothing, also where its p is 0.
    """

    name: ClassVar[str] = "softmax_cross_entropy"
    tolerance: ClassVar[Tolerance] = Tolerance.ACCUMULATION

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        logits, targets = operands(self, inputs, 2)
        require_float(self, logits)
        if logits.rank != 2 or 0 in logits.shape:
            raise type_error(self, "logits must be [N,C]", *inputs, hint="flatten the model's output to two axes")
        require_same_type(self, logits, targets)
        return logits.with_shape(logits.shape[:1]), logits

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        logits, targets = inputs
        shifted = logits - logits.max(axis=1, keepdims=True)
        exponentials = np.exp(shifted)
        total = exponentials.sum(axis=1, keepdims=True, dtype=logits.dtype)
        surprise = np.where(targets == 0, 0, np.log(total) - shifted)
        weight = targets.sum(axis=1, keepdims=True, dtype=logits.dtype)
        slopes = exponentials / total * weight - targets
        return (targets * surprise).sum(axis=1, dtype=logits.dtype), slopes

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        """dlogits = slopes * dlosses. Targets are data and get none; slopes are for this alone, and pass nothing on."""
        (logits, _), (_, slopes), (dlosses, _) = inputs, outputs, gradients
        if dlosses is None:
            return None, None
        column = build.emit(Reshape((logits.type.shape[0], 1)), dlosses)
        return build.emit(Mul(), slopes, column), None
