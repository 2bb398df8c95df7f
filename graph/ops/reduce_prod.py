"""Product over axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import Tolerance
from edgec.graph.ops.reduction import Reduction


@dataclass(frozen=True)
class ReduceProd(Reduction):
    """y = product of x over `axes`; 1 where that is a product of nothing."""

    name: ClassVar[str] = "reduce_prod"
    tolerance: ClassVar[Tolerance] = Tolerance.ACCUMULATION
    no_gradient: ClassVar[str | None] = "products without one factor are not derived"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.prod(x, axis=self.axes, keepdims=self.keepdims, dtype=x.dtype)),)
