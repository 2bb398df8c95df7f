"""Inverse hyperbolic tangent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder
from edgec.graph.ops.div import Div
from edgec.graph.ops.elementwise import SmoothUnary
from edgec.graph.ops.powers import one_minus_square

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Atanh(SmoothUnary):
    """y with tanh(y) = x; NaN outside [-1, 1]."""

    name: ClassVar[str] = "atanh"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.arctanh(x)),)

    def backward(self, build: GradientBuilder, dy: Value, x: Value, y: Value) -> Value:
        return build.emit(Div(), dy, one_minus_square(build, x))
