"""Gradient of cumulative products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import Tolerance
from edgec.graph.ops.checks import operands, require_axis, require_float, require_same_type
from edgec.graph.ops.cumulative import Cumulative
from edgec.graph.types import TensorType


@dataclass(frozen=True)
class CumProdGrad(Cumulative):
    """dy, x -> dx; the attributes are those of `cum_prod`.

    dx[i] = (product of all x before i) * s[i] with s[i] = dy[i] + x[i + 1] * s[i + 1] from the end: no division, so
    that factors of 0 are nothing special. Exclusive, s[i] = dy[i + 1] + x[i + 1] * s[i + 1].
    """

    name: ClassVar[str] = "cum_prod_grad"
    tolerance: ClassVar[Tolerance] = Tolerance.ACCUMULATION
    no_gradient: ClassVar[str | None] = "gradients of gradients are not derived"

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        dy, x = operands(self, inputs, 2)
        require_same_type(self, dy, x)
        require_float(self, dy, x)
        require_axis(self, self.axis, x)
        return (x,)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        dy, x = (np.moveaxis(array, self.axis, 0) for array in inputs)
        if self.reverse:
            dy, x = dy[::-1], x[::-1]
        before = np.ones_like(x)
        np.multiply.accumulate(x[:-1], axis=0, out=before[1:])
        dx = np.zeros_like(x)
        rest = np.zeros_like(x[0]) if len(x) else None
        for i in range(len(x) - 1, -1, -1):
            if self.exclusive:
                dx[i] = before[i] * rest
                rest = dy[i] + x[i] * rest
            else:
                rest = dy[i] + rest
                dx[i] = before[i] * rest
                rest = x[i] * rest
        dx = dx[::-1] if self.reverse else dx
        return (np.ascontiguousarray(np.moveaxis(dx, 0, self.axis)),)
