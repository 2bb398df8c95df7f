"""Gradient of sigmoid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.elementwise import UnaryGrad


@dataclass(frozen=True)
class SigmoidGrad(UnaryGrad):
    """dx = dy * y * (1 - y)."""

    name: ClassVar[str] = "sigmoid_grad"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        dy, y = inputs
        return (np.asarray(dy * (y * (1 - y)), dtype=dy.dtype),)
