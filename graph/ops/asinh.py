"""Inverse hyperbolic sine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.add import Add
from edgec.graph.ops.base import GradientBuilder
from edgec.graph.ops.div import Div
from edgec.graph.ops.elementwise import SmoothUnary
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.sqrt import Sqrt

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Asinh(SmoothUnary):
    """y with sinh(y) = x."""

    name: ClassVar[str] = "asinh"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.arcsinh(x)),)

    def backward(self, build: GradientBuilder, dy: Value, x: Value, y: Value) -> Value:
        one = build.constant(np.array(1.0))
        square = build.emit(Add(), one, build.emit(Mul(), x, x))
        return build.emit(Div(), dy, build.emit(Sqrt(), square))
