"""Error function."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder
from edgec.graph.ops.elementwise import SmoothUnary
from edgec.graph.ops.exp import Exp
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.neg import Neg

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Erf(SmoothUnary):
    """y = 2 / sqrt(pi) * the integral of exp(-t^2) from 0 to x."""

    name: ClassVar[str] = "erf"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype),)

    def backward(self, build: GradientBuilder, dy: Value, x: Value, y: Value) -> Value:
        square = build.emit(Neg(), build.emit(Mul(), x, x))
        slope = build.constant(np.array(2 / math.sqrt(math.pi)))
        return build.emit(Mul(), build.emit(Mul(), dy, slope), build.emit(Exp(), square))
