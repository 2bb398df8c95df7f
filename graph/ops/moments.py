"""Mean and variance over axes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.add import Add
from edgec.graph.ops.base import GradientBuilder, Op, Tolerance, type_error
from edgec.graph.ops.checks import operands, require_axes, require_float
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.sub import Sub
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Moments(Op):
    """x -> mean, variance over `axes`, which stand in ascending order and are dropped. The variance is the mean of
    squares around the mean, in a second pass: the difference of two moments would lose all digits far from zero.
    """

    name: ClassVar[str] = "moments"
    tolerance: ClassVar[Tolerance] = Tolerance.ACCUMULATION

    axes: tuple[int, ...]

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = operands(self, inputs, 1)
        require_float(self, x)
        require_axes(self, self.axes, x)
        if any(x.shape[axis] == 0 for axis in self.axes):
            raise type_error(self, "the mean is one of no elements", x)
        kept = x.with_shape(tuple(n for axis, n in enumerate(x.shape) if axis not in self.axes))
        return kept, kept

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        mean = np.mean(x, axis=self.axes, keepdims=True, dtype=x.dtype)
        variance = np.mean((x - mean) ** 2, axis=self.axes, dtype=x.dtype)
        return mean.reshape(np.shape(variance)), np.asarray(variance)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        """dx = (dmean + 2 * dvariance * (x - mean)) / elements."""
        (x,), (mean, _), (dmean, dvariance) = inputs, outputs, gradients
        kept = tuple(1 if axis in self.axes else n for axis, n in enumerate(x.type.shape))
        elements = math.prod(x.type.shape[axis] for axis in self.axes)

        def share(gradient: Value, factor: float) -> Value:
            part = build.emit(Mul(), gradient, build.constant(np.array(factor / elements)))
            return build.emit(Reshape(kept), part)

        zero = build.constant(np.zeros((), np.float32))
        dx = share(dmean, 1.0) if dmean is not None else zero
        factor = share(dvariance, 2.0) if dvariance is not None else zero
        centred = build.emit(Sub(), x, build.emit(Reshape(kept), mean))
        return (build.emit(Add(), build.emit(Mul(), centred, factor), dx),)
