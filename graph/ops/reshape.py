"""Another shape for the same elements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import Cost, GradientBuilder, Op, Tolerance, type_error
from edgec.graph.ops.checks import operands, require_shape
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Reshape(Op):
    """The elements of x in row-major order under another shape. Moves nothing where storage is row-major."""

    name: ClassVar[str] = "reshape"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT

    shape: tuple[int, ...]

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = operands(self, inputs, 1)
        require_shape(self, self.shape, x)
        y = x.with_shape(self.shape)
        if y.size != x.size:
            raise type_error(self, f"shape {self.shape} has {y.size} elements, the operand {x.size}", x)
        return (y,)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (x.reshape(self.shape).copy(),)

    def cost(self, inputs: tuple[TensorType, ...], outputs: tuple[TensorType, ...]) -> Cost:
        return Cost(0, 0)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        (x,) = inputs
        (dy,) = gradients
        return (build.emit(Reshape(x.type.shape), dy),)
