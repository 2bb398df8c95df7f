"""Division."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder
from edgec.graph.ops.broadcasting import sum_to
from edgec.graph.ops.elementwise import Binary
from edgec.graph.ops.mul import Mul

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Div(Binary):
    """y = a / b, broadcast; floats by IEEE 754 also where b is 0, integers rounded to zero and 0 where b is 0."""

    name: ClassVar[str] = "div"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        a, b = inputs
        if a.dtype.kind not in "iu":
            return (np.asarray(a / b),)
        a, b = np.broadcast_arrays(a, b)
        divisor = np.where(b == 0, 1, b)
        quotient = np.floor_divide(a, divisor)
        rounded = quotient + ((quotient < 0) & (np.fmod(a, divisor) != 0))
        return (np.where(b == 0, 0, rounded).astype(a.dtype),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        """da = dy / b and db = -da * y, each summed to its operand."""
        a, b = inputs
        (y,) = outputs
        (dy,) = gradients
        if not (build.wanted(a) or build.wanted(b)):
            return None, None
        quotient = build.emit(Div(), dy, b)
        da = sum_to(build, quotient, a.type) if build.wanted(a) else None
        db = None
        if build.wanted(b):
            db = sum_to(build, build.emit(Mul(), quotient, y), b.type)
            db = build.emit(Mul(), db, build.constant(np.array(-1, np.float32)))
        return da, db
