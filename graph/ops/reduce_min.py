"""Minimum over axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder, Tolerance, type_error
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reduce_max import ReduceMax
from edgec.graph.ops.reduction import Reduction
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class ReduceMin(Reduction):
    """y = smallest element of x over `axes`; NaN if one of them is."""

    name: ClassVar[str] = "reduce_min"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        outputs = super().infer(*inputs)
        if any(inputs[0].shape[axis] == 0 for axis in self.axes):
            raise type_error(self, f"the minimum over axes {self.axes} is one of no elements", *inputs)
        return outputs

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.min(x, axis=self.axes, keepdims=self.keepdims)),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        """To the first of equal minima, which is where -x has its maximum."""
        minus = build.constant(np.array(-1.0, np.float32))
        (x,), (y,) = (tuple(build.emit(Mul(), value, minus) for value in values) for values in (inputs, outputs))
        return ReduceMax(self.axes, self.keepdims).vjp(build, (x,), (y,), gradients)
