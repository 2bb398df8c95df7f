"""Cumulative products along one axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder, Tolerance
from edgec.graph.ops.cum_prod_grad import CumProdGrad
from edgec.graph.ops.cumulative import Cumulative

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class CumProd(Cumulative):
    """y[i] = x[0] * ... * x[i] along `axis`; without x[i] itself if `exclusive`, from the end if `reverse`."""

    name: ClassVar[str] = "cum_prod"
    tolerance: ClassVar[Tolerance] = Tolerance.ACCUMULATION

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        return (self.accumulate(np.multiply, 1, *inputs),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        (x,), (dy,) = inputs, gradients
        return (build.emit(CumProdGrad(self.axis, self.exclusive, self.reverse), dy, x),)
