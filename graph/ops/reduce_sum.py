"""Sum over axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder, Tolerance
from edgec.graph.ops.reduction import Reduction

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class ReduceSum(Reduction):
    """y = sum of x over `axes`; 0 where that is a sum of nothing."""

    name: ClassVar[str] = "reduce_sum"
    tolerance: ClassVar[Tolerance] = Tolerance.ACCUMULATION

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.sum(x, axis=self.axes, keepdims=self.keepdims, dtype=x.dtype)),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        (x,) = inputs
        (dy,) = gradients
        return (self.spread(build, dy, x.type),)
