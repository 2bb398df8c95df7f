"""Gradient of hard_sigmoid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.elementwise import UnaryGrad


@dataclass(frozen=True)
class HardSigmoidGrad(UnaryGrad):
    """dx = alpha * dy where 0 < y < 1, else 0."""

    name: ClassVar[str] = "hard_sigmoid_grad"

    alpha: float

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        dy, y = inputs
        return (np.asarray(np.where((y > 0) & (y < 1), self.alpha * dy, 0), dtype=dy.dtype),)
