"""Mean over axes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder, Tolerance, type_error
from edgec.graph.ops.checks import require_float
from edgec.graph.ops.div import Div
from edgec.graph.ops.reduction import Reduction
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class ReduceMean(Reduction):
    """y = mean of x over `axes`."""

    name: ClassVar[str] = "reduce_mean"
    tolerance: ClassVar[Tolerance] = Tolerance.ACCUMULATION

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        outputs = super().infer(*inputs)
        require_float(self, *inputs)
        if self.count(inputs[0]) == 0:
            raise type_error(self, f"the mean over axes {self.axes} is one of no elements", *inputs)
        return outputs

    def count(self, x: TensorType) -> int:
        """Number of elements behind each mean."""
        return math.prod(x.shape[axis] for axis in self.axes)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.mean(x, axis=self.axes, keepdims=self.keepdims), dtype=x.dtype),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        """dx = dy / count, divided before it is spread: the smaller tensor, and by a number that is exact in f32."""
        (x,) = inputs
        (dy,) = gradients
        share = build.emit(Div(), dy, build.constant(np.array(self.count(x.type), np.float32)))
        return (self.spread(build, share, x.type),)
