"""Inverse cosine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.elementwise import Unary


@dataclass(frozen=True)
class Acos(Unary):
    """y in [0, pi] with cos(y) = x; NaN outside [-1, 1]."""

    name: ClassVar[str] = "acos"
    no_gradient: ClassVar[str | None] = "its gradient is not written yet"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.arccos(x)),)
