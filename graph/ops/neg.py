"""Negation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder, Tolerance
from edgec.graph.ops.elementwise import SmoothNumberUnary

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Neg(SmoothNumberUnary):
    """y = -x, of any number; the least integer stays as it is."""

    name: ClassVar[str] = "neg"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.negative(x)),)

    def backward(self, build: GradientBuilder, dy: Value, x: Value, y: Value) -> Value:
        return build.emit(Neg(), dy)
