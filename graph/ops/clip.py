"""Clipping to an interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder, Tolerance, type_error
from edgec.graph.ops.clip_grad import ClipGrad
from edgec.graph.ops.elementwise import SmoothNumberUnary
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Clip(SmoothNumberUnary):
    """y = min(max(x, low), high) of any number; an infinite bound leaves its side open, NaN passes.

    The bounds of integers are whole, and one beyond the range of the type is open.
    """

    name: ClassVar[str] = "clip"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT

    low: float
    high: float

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        if not self.low <= self.high:
            hint = "an open side is -inf or inf"
            raise type_error(self, f"low={self.low} is not below high={self.high}", *inputs, hint=hint)
        outputs = super().infer(*inputs)
        if not inputs[0].dtype.is_float and any(math.isfinite(n) and n != int(n) for n in (self.low, self.high)):
            raise type_error(self, f"low={self.low} or high={self.high} is not whole", *inputs)
        return outputs

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        low, high = self.low, self.high
        if x.dtype.kind in "iu":
            limits = np.iinfo(x.dtype)
            low, high = (int(min(max(n, limits.min), limits.max)) for n in (low, high))
        return (np.asarray(np.clip(x, low, high), dtype=x.dtype),)

    def backward(self, build: GradientBuilder, dy: Value, x: Value, y: Value) -> Value:
        return build.emit(ClipGrad(self.low, self.high), dy, y)
