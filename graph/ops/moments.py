"""Mean and variance over axes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.add import Add
from edgec.graph.ops.base import GradientBuilder, Op, Tolerance, type_error
from edgec.graph.ops.checks import operands, require_axes, require_float, require_same_dtype
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.sub import Sub
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Moments(Op):
    """x[, weights] -> mean, variance over `axes`, which stand in ascending order and are dropped. The variance is the
    mean of squares around the mean, in a second pass: the difference of two moments would lose all digits far from
    zero.

    `weights`, of x's rank, broadcast along every axis but some of those reduced, over which they add up to 1: how much
    each counts. Those of weight 0 do not, whatever finite numbers they hold.
    """

    name: ClassVar[str] = "moments"
    tolerance: ClassVar[Tolerance] = Tolerance.ACCUMULATION

    axes: tuple[int, ...]

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, *weights = operands(self, inputs, 2 if len(inputs) == 2 else 1)
        require_float(self, x)
        require_same_dtype(self, *inputs)
        for kind in weights:
            own = [n == 1 or (axis in self.axes and n == x.shape[axis]) for axis, n in enumerate(kind.shape)]
            if kind.rank != x.rank or not all(own):
                raise type_error(self, "weights must broadcast along all axes but those reduced", *inputs)
        require_axes(self, self.axes, x)
        if any(x.shape[axis] == 0 for axis in self.axes):
            raise type_error(self, "the mean is one of no elements", x)
        kept = x.with_shape(tuple(n for axis, n in enumerate(x.shape) if axis not in self.axes))
        return kept, kept

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        x, *weights = inputs
        count = x.dtype.type(self.sharing(x.shape, *(share.shape for share in weights)))

        def mean_of(values: np.ndarray) -> np.ndarray:
            for share in weights:
                values = np.where(share == 0, 0, values * share)
            return np.asarray(np.sum(values, axis=self.axes, keepdims=True, dtype=x.dtype) / count)

        mean = mean_of(x)
        kept = tuple(n for axis, n in enumerate(x.shape) if axis not in self.axes)
        return mean.reshape(kept), mean_of((x - mean) ** 2).reshape(kept)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        """dx = (dmean + 2 * dvariance * (x - mean)) / elements, or times the weights that the others share."""
        (x, *weights), (mean, _), (dmean, dvariance) = inputs, outputs, gradients
        kept = tuple(1 if axis in self.axes else n for axis, n in enumerate(x.type.shape))
        elements = self.sharing(x.type.shape, *(kind.type.shape for kind in weights))

        def share(gradient: Value, factor: float) -> Value:
            part = build.emit(Mul(), gradient, build.constant(np.array(factor / elements)))
            return build.emit(Reshape(kept), part)

        zero = build.constant(np.zeros((), np.float32))
        dx = share(dmean, 1.0) if dmean is not None else zero
        factor = share(dvariance, 2.0) if dvariance is not None else zero
        centred = build.emit(Sub(), x, build.emit(Reshape(kept), mean))
        dx = build.emit(Add(), build.emit(Mul(), centred, factor), dx)
        return (build.emit(Mul(), dx, weights[0]), None) if weights else (dx,)

    def sharing(self, x: tuple[int, ...], *weights: tuple[int, ...]) -> int:
        """How many elements of a shape x share one weight; without weights, all that are reduced."""
        extents = weights[0] if weights else (1,) * len(x)
        return math.prod(x[axis] for axis in self.axes if extents[axis] == 1)
