"""Shift towards the low bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import Tolerance
from edgec.graph.ops.elementwise import Shift


@dataclass(frozen=True)
class ShiftRight(Shift):
    """y = a / 2^b rounded down; as if shifted bit by bit where b is not below the number of bits."""

    name: ClassVar[str] = "shift_right"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT
    no_gradient: ClassVar[str | None] = "bits have none"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        a, b = inputs
        bits = a.dtype.itemsize * 8
        inside = (b >= 0) & (b < bits)
        return ((a >> np.where(inside, b, bits - 1) >> np.where(inside, 0, 1)).astype(a.dtype),)
