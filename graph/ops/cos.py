"""Cosine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops import sin  # a module: the two refer to one another
from edgec.graph.ops.base import GradientBuilder
from edgec.graph.ops.elementwise import SmoothUnary
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.neg import Neg

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Cos(SmoothUnary):
    """y = cos(x), x in radians; accurate up to |x| = 8192."""

    name: ClassVar[str] = "cos"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.cos(x)),)

    def backward(self, build: GradientBuilder, dy: Value, x: Value, y: Value) -> Value:
        return build.emit(Neg(), build.emit(Mul(), dy, build.emit(sin.Sin(), x)))
