"""Cosine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.elementwise import Unary


@dataclass(frozen=True)
class Cos(Unary):
    """y = cos(x), x in radians; accurate up to |x| = 8192."""

    name: ClassVar[str] = "cos"
    no_gradient: ClassVar[str | None] = "its gradient is not written yet"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.cos(x)),)
