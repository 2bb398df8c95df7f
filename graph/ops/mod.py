"""Remainder of a division that rounds down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import Tolerance
from edgec.graph.ops.remainder import Remainder


@dataclass(frozen=True)
class Mod(Remainder):
    """y = a - b * floor(a / b), with the sign of b; of integers 0 where b is 0."""

    name: ClassVar[str] = "mod"
    tolerance: ClassVar[Tolerance] = Tolerance.ROUNDING

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        return (self.rest(np.mod, *inputs),)
