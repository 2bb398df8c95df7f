"""Hyperbolic cosine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops import sinh  # a module: the two refer to one another
from edgec.graph.ops.base import GradientBuilder
from edgec.graph.ops.elementwise import SmoothUnary
from edgec.graph.ops.mul import Mul

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Cosh(SmoothUnary):
    """y = (exp(x) + exp(-x)) / 2."""

    name: ClassVar[str] = "cosh"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.cosh(x)),)

    def backward(self, build: GradientBuilder, dy: Value, x: Value, y: Value) -> Value:
        return build.emit(Mul(), dy, build.emit(sinh.Sinh(), x))
