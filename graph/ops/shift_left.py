"""Shift towards the high bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import Tolerance
from edgec.graph.ops.elementwise import Shift


@dataclass(frozen=True)
class ShiftLeft(Shift):
    """y = a * 2^b without what does not fit; 0 where b is not below the number of bits."""

    name: ClassVar[str] = "shift_left"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT
    no_gradient: ClassVar[str | None] = "bits have none"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        a, b = inputs
        bits = a.dtype.itemsize * 8
        inside = (b >= 0) & (b < bits)
        return (np.where(inside, a << np.where(inside, b, 0).astype(a.dtype), 0).astype(a.dtype),)
