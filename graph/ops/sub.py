"""Subtraction."""

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
class Sub(Binary):
    """y = a - b, broadcast."""

    name: ClassVar[str] = "sub"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        a, b = inputs
        return (np.asarray(a - b),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        a, b = inputs
        (dy,) = gradients
        da = sum_to(build, dy, a.type) if build.wanted(a) else None
        db = None
        if build.wanted(b):
            # Negated after the sum: b is often the smaller one.
            db = build.emit(Mul(), sum_to(build, dy, b.type), build.constant(np.array(-1, np.float32)))
        return da, db
