"""Square root."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder
from edgec.graph.ops.div import Div
from edgec.graph.ops.elementwise import SmoothUnary
from edgec.graph.ops.mul import Mul

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Sqrt(SmoothUnary):
    """y = the square root of x; NaN below 0."""

    name: ClassVar[str] = "sqrt"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.sqrt(x)),)

    def backward(self, build: GradientBuilder, dy: Value, x: Value, y: Value) -> Value:
        half = build.emit(Mul(), dy, build.constant(np.array(0.5, np.float32)))
        return build.emit(Div(), half, y)
