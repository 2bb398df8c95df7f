"""Hyperbolic sine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.elementwise import Unary


@dataclass(frozen=True)
class Sinh(Unary):
    """y = (exp(x) - exp(-x)) / 2."""

    name: ClassVar[str] = "sinh"
    no_gradient: ClassVar[str | None] = "its gradient is not written yet"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.sinh(x)),)
