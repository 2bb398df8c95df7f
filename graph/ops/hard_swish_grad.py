"""Gradient of hard_swish."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.elementwise import UnaryGrad


@dataclass(frozen=True)
class HardSwishGrad(UnaryGrad):
    """dx = 0 for x <= -3, dy for x >= 3, dy * (x / 3 + 1/2) between: at the two kinks as torch does."""

    name: ClassVar[str] = "hard_swish_grad"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        dy, x = inputs
        return (np.asarray(np.where(x <= -3, 0, np.where(x >= 3, dy, dy * (x / 3 + 0.5))), dtype=dy.dtype),)
