"""Tangent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.add import Add
from edgec.graph.ops.base import GradientBuilder
from edgec.graph.ops.elementwise import SmoothUnary
from edgec.graph.ops.mul import Mul

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Tan(SmoothUnary):
    """y = tan(x), x in radians; accurate up to |x| = 8192."""

    name: ClassVar[str] = "tan"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.tan(x)),)

    def backward(self, build: GradientBuilder, dy: Value, x: Value, y: Value) -> Value:
        one = build.constant(np.array(1.0))
        slope = build.emit(Add(), one, build.emit(Mul(), y, y))
        return build.emit(Mul(), dy, slope)
