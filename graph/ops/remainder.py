"""What `mod` and `fmod` have in common: no remainder of 0, and a gradient that sees the whole quotient as fixed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgec.graph.ops.base import GradientBuilder
from edgec.graph.ops.broadcasting import sum_to
from edgec.graph.ops.div import Div
from edgec.graph.ops.elementwise import Binary
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.round import Round
from edgec.graph.ops.sub import Sub

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Remainder(Binary):
    """y = a - b * n with a whole number n; of integers 0 where b is 0."""

    def rest(self, function: np.ufunc, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if a.dtype.kind not in "iu":
            return np.asarray(function(a, b))
        a, b = np.broadcast_arrays(a, b)
        return np.where(b == 0, 0, function(a, np.where(b == 0, 1, b))).astype(a.dtype)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        """da = dy and db = -n * dy; n is (a - y) / b but for rounding."""
        (a, b), (y,), (dy,) = inputs, outputs, gradients
        da = sum_to(build, dy, a.type) if build.wanted(a) else None
        db = None
        if build.wanted(b):
            minus_n = build.emit(Round(), build.emit(Div(), build.emit(Sub(), y, a), b))
            db = sum_to(build, build.emit(Mul(), dy, minus_n), b.type)
        return da, db
