"""Remainder of a division that rounds to zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import Tolerance
from edgec.graph.ops.remainder import Remainder


@dataclass(frozen=True)
class Fmod(Remainder):
    """y = a - b * truncate(a / b), with the sign of a (C's fmod and %); of integers 0 where b is 0."""

    name: ClassVar[str] = "fmod"
    tolerance: ClassVar[Tolerance] = Tolerance.ROUNDING

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        return (self.rest(np.fmod, *inputs),)
