"""Sine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder
from edgec.graph.ops.cos import Cos
from edgec.graph.ops.elementwise import Unary
from edgec.graph.ops.mul import Mul

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Sin(Unary):
    """y = sin(x), x in radians; accurate up to |x| = 8192."""

    name: ClassVar[str] = "sin"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.sin(x)),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        (x,) = inputs
        (dy,) = gradients
        return (build.emit(Mul(), dy, build.emit(Cos(), x)),)
