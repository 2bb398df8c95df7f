"""Inverse hyperbolic sine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.elementwise import Unary


@dataclass(frozen=True)
class Asinh(Unary):
    """y with sinh(y) = x."""

    name: ClassVar[str] = "asinh"
    no_gradient: ClassVar[str | None] = "its gradient is not written yet"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.arcsinh(x)),)
