"""The larger of two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import Tolerance
from edgec.graph.ops.extremum import Extremum


@dataclass(frozen=True)
class Maximum(Extremum):
    """y = the larger of a and b, broadcast; NaN if one of them is."""

    name: ClassVar[str] = "maximum"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        a, b = inputs
        return (np.asarray(np.maximum(a, b)),)
