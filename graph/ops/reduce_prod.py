"""Product over axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder, Tolerance
from edgec.graph.ops.cum_prod import CumProd
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reduction import Reduction
from edgec.graph.ops.reshape import Reshape

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class ReduceProd(Reduction):
    """y = product of x over `axes`; 1 where that is a product of nothing."""

    name: ClassVar[str] = "reduce_prod"
    tolerance: ClassVar[Tolerance] = Tolerance.ACCUMULATION

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.prod(x, axis=self.axes, keepdims=self.keepdims, dtype=x.dtype)),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        """The product of all other factors is that of those before times that of those behind: no division by 0."""
        (x,), (dy,) = inputs, gradients
        rows, back = self.rows(build, x)
        before = build.emit(CumProd(1, exclusive=True), rows)
        behind = build.emit(CumProd(1, exclusive=True, reverse=True), rows)
        dy = build.emit(Reshape((rows.type.shape[0], 1)), dy)
        return (back(build.emit(Mul(), dy, build.emit(Mul(), before, behind))),)
