"""Inverse tangent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.elementwise import Unary


@dataclass(frozen=True)
class Atan(Unary):
    """y in [-pi/2, pi/2] with tan(y) = x."""

    name: ClassVar[str] = "atan"
    no_gradient: ClassVar[str | None] = "its gradient is not written yet"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.arctan(x)),)
