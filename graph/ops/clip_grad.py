"""Gradient of clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import Tolerance
from edgec.graph.ops.elementwise import UnaryGrad


@dataclass(frozen=True)
class ClipGrad(UnaryGrad):
    """dx = dy where low < y < high, else 0: what was clipped, or lay on a bound, passes nothing."""

    name: ClassVar[str] = "clip_grad"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT

    low: float
    high: float

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        dy, y = inputs
        return (np.where((y > self.low) & (y < self.high), dy, dy.dtype.type(0)),)
