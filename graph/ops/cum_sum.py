"""Cumulative sums along one axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder, Tolerance
from edgec.graph.ops.cumulative import Cumulative

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class CumSum(Cumulative):
    """y[i] = x[0] + ... + x[i] along `axis`; without x[i] itself if `exclusive`, from the end if `reverse`."""

    name: ClassVar[str] = "cum_sum"
    tolerance: ClassVar[Tolerance] = Tolerance.ACCUMULATION

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        return (self.accumulate(np.add, 0, *inputs),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        """Each element went into all sums behind it."""
        (dy,) = gradients
        return (build.emit(CumSum(self.axis, self.exclusive, not self.reverse), dy),)
