"""Natural logarithm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder
from edgec.graph.ops.div import Div
from edgec.graph.ops.elementwise import SmoothUnary

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Log(SmoothUnary):
    """y = the natural logarithm of x; -inf at 0, NaN below."""

    name: ClassVar[str] = "log"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.log(x)),)

    def backward(self, build: GradientBuilder, dy: Value, x: Value, y: Value) -> Value:
        return build.emit(Div(), dy, x)
