"""Maximum over axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder, Tolerance, type_error
from edgec.graph.ops.max_pool2d_grad import MaxPool2dGrad
from edgec.graph.ops.reduction import Reduction
from edgec.graph.ops.reshape import Reshape
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class ReduceMax(Reduction):
    """y = largest element of x over `axes`; NaN if one of them is. The gradient goes to the first of equal ones."""

    name: ClassVar[str] = "reduce_max"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        outputs = super().infer(*inputs)
        if any(inputs[0].shape[axis] == 0 for axis in self.axes):
            raise type_error(self, f"the maximum over axes {self.axes} is one of no elements", *inputs)
        return outputs

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.max(x, axis=self.axes, keepdims=self.keepdims)),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        """What is reduced becomes one row for each maximum; the gradient of a max pool over the row finds its place."""
        (x,), (y,), (dy,) = inputs, outputs, gradients
        rows, back = self.rows(build, x)
        results, count = rows.type.shape
        dy, rows, y = (
            build.emit(Reshape((1, results, 1, columns)), value) for value, columns in ((dy, 1), (rows, count), (y, 1))
        )
        return (back(build.emit(MaxPool2dGrad((1, count)), dy, rows, y)),)
