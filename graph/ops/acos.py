"""Inverse cosine."""

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
class Acos(SmoothUnary):
    """y in [0, pi] with cos(y) = x; NaN outside [-1, 1]."""

    name: ClassVar[str] = "acos"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.arccos(x)),)

    def backward(self, build: GradientBuilder, dy: Value, x: Value, y: Value) -> Value:
        return build.emit(Neg(), build.emit(Div(), dy, build.emit(Sqrt(), one_minus_square(build, x))))
