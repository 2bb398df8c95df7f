"""Power."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder, Tolerance
from edgec.graph.ops.broadcasting import sum_to
from edgec.graph.ops.elementwise import Binary
from edgec.graph.ops.equal import Equal
from edgec.graph.ops.less import Less
from edgec.graph.ops.log import Log
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.sub import Sub
from edgec.graph.ops.where import Where

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Pow(Binary):
    """y = a to the power b, as C's pow; of integers the product, or 0 for a negative b unless |a| is 1."""

    name: ClassVar[str] = "pow"
    tolerance: ClassVar[Tolerance] = Tolerance.ACCUMULATION

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        a, b = inputs
        if a.dtype.kind in "iu":
            return (_integer_power(*np.broadcast_arrays(a, b)),)
        return (np.asarray(np.power(a, b)),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        """da = dy * b * a^(b - 1), and 0 where b is 0; db = dy * y * log(a), and 0 where a is 0
        and b not negative. Both as torch."""
        (a, b), (y,), (dy,) = inputs, outputs, gradients
        zero = build.constant(np.array(0.0))
        da = db = None
        if build.wanted(a):
            below = build.emit(Pow(), a, build.emit(Sub(), b, build.constant(np.array(1.0))))
            slope = build.emit(Where(), build.emit(Equal(), b, zero), zero, build.emit(Mul(), b, below))
            da = sum_to(build, build.emit(Mul(), dy, slope), a.type)
        if build.wanted(b):
            slope = build.emit(Mul(), y, build.emit(Log(), a))
            at_zero = build.emit(Where(), build.emit(Less(), b, zero), slope, zero)
            slope = build.emit(Where(), build.emit(Equal(), a, zero), at_zero, slope)
            db = sum_to(build, build.emit(Mul(), dy, slope), b.type)
        return da, db


def _integer_power(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    y = np.power(a, np.maximum(b, 0))
    odd = np.where(b % 2 == 1, a, 1)
    return np.where(b < 0, np.where(a == 1, 1, np.where(a == -1, odd, 0)), y).astype(a.dtype)
