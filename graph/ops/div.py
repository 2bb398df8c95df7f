"""Division of floats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder
from edgec.graph.ops.broadcasting import sum_to
from edgec.graph.ops.checks import require_float
from edgec.graph.ops.elementwise import Binary
from edgec.graph.ops.mul import Mul
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Div(Binary):
    """y = a / b, broadcast; by IEEE 754 also where b is 0. Integers are refused: languages round them differently."""

    name: ClassVar[str] = "div"

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        outputs = super().infer(*inputs)
        require_float(self, *inputs)
        return outputs

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        a, b = inputs
        return (np.asarray(a / b),)

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
