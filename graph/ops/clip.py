"""Clipping to an interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder, Tolerance, type_error
from edgec.graph.ops.clip_grad import ClipGrad
from edgec.graph.ops.elementwise import Unary
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Clip(Unary):
    """y = min(max(x, low), high); an infinite bound leaves its side open, NaN passes."""

    name: ClassVar[str] = "clip"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT

    low: float
    high: float

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        if not self.low <= self.high:
            hint = "an open side is -inf or inf"
            raise type_error(self, f"low={self.low} is not below high={self.high}", *inputs, hint=hint)
        return super().infer(*inputs)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.clip(x, self.low, self.high), dtype=x.dtype),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        (y,) = outputs
        (dy,) = gradients
        return (build.emit(ClipGrad(self.low, self.high), dy, y),)
