"""Remainder of a division that rounds down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import Tolerance
from edgec.graph.ops.elementwise import Binary


@dataclass(frozen=True)
class Mod(Binary):
    """y = a - b * floor(a / b), with the sign of b; of integers 0 where b is 0."""

    name: ClassVar[str] = "mod"
    tolerance: ClassVar[Tolerance] = Tolerance.ROUNDING
    no_gradient: ClassVar[str | None] = "its gradient is not written yet"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        a, b = inputs
        if a.dtype.kind in "iu":
            a, b = np.broadcast_arrays(a, b)
            return (np.where(b == 0, 0, np.mod(a, np.where(b == 0, 1, b))).astype(a.dtype),)
        return (np.asarray(np.mod(a, b)),)
