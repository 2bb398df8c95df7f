"""Inverse tangent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.add import Add
from edgec.graph.ops.base import GradientBuilder
from edgec.graph.ops.div import Div
from edgec.graph.ops.elementwise import SmoothUnary
from edgec.graph.ops.mul import Mul

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Atan(SmoothUnary):
    """y in [-pi/2, pi/2] with tan(y) = x."""

    name: ClassVar[str] = "atan"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.arctan(x)),)

    def backward(self, build: GradientBuilder, dy: Value, x: Value, y: Value) -> Value:
        one = build.constant(np.array(1.0))
        return build.emit(Div(), dy, build.emit(Add(), one, build.emit(Mul(), x, x)))
