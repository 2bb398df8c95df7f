"""Inverse hyperbolic cosine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder
from edgec.graph.ops.div import Div
from edgec.graph.ops.elementwise import SmoothUnary
from edgec.graph.ops.neg import Neg
from edgec.graph.ops.powers import one_minus_square
from edgec.graph.ops.sqrt import Sqrt

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Acosh(SmoothUnary):
    """y >= 0 with cosh(y) = x; NaN below 1."""

    name: ClassVar[str] = "acosh"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.arccosh(x)),)

    def backward(self, build: GradientBuilder, dy: Value, x: Value, y: Value) -> Value:
        return build.emit(Div(), dy, build.emit(Sqrt(), build.emit(Neg(), one_minus_square(build, x))))
