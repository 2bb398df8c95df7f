"""Cumulative products along one axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import Tolerance
from edgec.graph.ops.cumulative import Cumulative


@dataclass(frozen=True)
class CumProd(Cumulative):
    """y[i] = x[0] * ... * x[i] along `axis`; without x[i] itself if `exclusive`, from the end if `reverse`."""

    name: ClassVar[str] = "cum_prod"
    tolerance: ClassVar[Tolerance] = Tolerance.ACCUMULATION
    no_gradient: ClassVar[str | None] = "products without one factor are not derived"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        return (self.accumulate(np.multiply, 1, *inputs),)
