"""Rectified linear unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder, Tolerance
from edgec.graph.ops.elementwise import SmoothUnary
from edgec.graph.ops.relu_grad import ReluGrad

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Relu(SmoothUnary):
    """y = max(x, 0)."""

    name: ClassVar[str] = "relu"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.maximum(x, x.dtype.type(0))),)

    def backward(self, build: GradientBuilder, dy: Value, x: Value, y: Value) -> Value:
        return build.emit(ReluGrad(), dy, y)
