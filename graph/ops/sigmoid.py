"""Logistic function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder
from edgec.graph.ops.elementwise import Unary
from edgec.graph.ops.sigmoid_grad import SigmoidGrad

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Sigmoid(Unary):
    """y = 1 / (1 + exp(-x))."""

    name: ClassVar[str] = "sigmoid"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        # exp of a negative number only, so that nothing overflows on the way to 0 or 1.
        decay = np.exp(-np.abs(x))
        return (np.asarray(np.where(x >= 0, 1, decay) / (1 + decay), dtype=x.dtype),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        (y,) = outputs
        (dy,) = gradients
        return (build.emit(SigmoidGrad(), dy, y),)
