"""Gradient of relu."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import Tolerance
from edgec.graph.ops.elementwise import UnaryGrad


@dataclass(frozen=True)
class ReluGrad(UnaryGrad):
    """dx = dy where y > 0, else 0."""

    name: ClassVar[str] = "relu_grad"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        dy, y = inputs
        return (np.where(y > 0, dy, dy.dtype.type(0)),)
