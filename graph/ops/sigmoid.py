"""Logistic function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder
from edgec.graph.ops.elementwise import SmoothUnary
from edgec.graph.ops.sigmoid_grad import SigmoidGrad

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Sigmoid(SmoothUnary):
    """y = 1 / (1 + exp(-x))."""

    name: ClassVar[str] = "sigmoid"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        # exp of a negative number only, so that nothing overflows on the way to 0 or 1.
        decay = np.exp(-np.abs(x))
        return (np.asarray(np.where(x >= 0, 1, decay) / (1 + decay), dtype=x.dtype),)

    def backward(self, build: GradientBuilder, dy: Value, x: Value, y: Value) -> Value:
        return build.emit(SigmoidGrad(), dy, y)
