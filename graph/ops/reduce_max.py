"""Maximum over axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder, Tolerance, type_error
from edgec.graph.ops.max_pool2d_grad import MaxPool2dGrad
from edgec.graph.ops.reduction import Reduction
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.transpose import Transpose
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
        (x,) = inputs
        (y,) = outputs
        (dy,) = gradients
        rank = x.type.rank
        perm = (*(axis for axis in range(rank) if axis not in self.axes), *self.axes)
        moves = perm != tuple(range(rank))
        rows = build.emit(Transpose(perm), x) if moves else x
        shape = rows.type.shape
        count = x.type.size // y.type.size
        dy, rows, y = (
            build.emit(Reshape((1, y.type.size, 1, columns)), value)
            for value, columns in ((dy, 1), (rows, count), (y, 1))
        )
        dx = build.emit(Reshape(shape), build.emit(MaxPool2dGrad((1, count)), dy, rows, y))
        return (build.emit(Transpose(tuple(perm.index(axis) for axis in range(rank))), dx) if moves else dx,)
