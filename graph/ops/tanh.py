"""Hyperbolic tangent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder
from edgec.graph.ops.elementwise import SmoothUnary
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.sub import Sub

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Tanh(SmoothUnary):
    """y = tanh(x)."""

    name: ClassVar[str] = "tanh"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.tanh(x)),)

    def backward(self, build: GradientBuilder, dy: Value, x: Value, y: Value) -> Value:
        slope = build.emit(Sub(), build.constant(np.array(1, np.float32)), build.emit(Mul(), y, y))
        return build.emit(Mul(), dy, slope)
