"""Maximum over axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder, Tolerance, type_error
from edgec.graph.ops.max_pool2d_grad import MaxPool2dGrad
from edgec.graph.ops.max_pool2d_positions import MaxPool2dPositions
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
        (x,), (dy,) = inputs, gradients
        rows, back = self.rows(build, x)
        results, count = rows.type.shape
        dy, rows = (build.emit(Reshape((1, results, 1, n)), value) for value, n in ((dy, 1), (rows, count)))
        _, positions = build.emit_all(MaxPool2dPositions((1, count)), rows)
        return (back(build.emit(MaxPool2dGrad((1, count), input_size=(1, count)), dy, positions)),)
