"""Softmax along one axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import ChannelRule, GradientBuilder, Op, Tolerance
from edgec.graph.ops.checks import operands, require_axis, require_float
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.ops.sub import Sub
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Softmax(Op):
    """y = exp(x - max) / sum(exp(x - max)), maximum and sum along `axis`."""

    name: ClassVar[str] = "softmax"
    tolerance: ClassVar[Tolerance] = Tolerance.ACCUMULATION

    axis: int

    @property
    def channel_rule(self) -> ChannelRule:
        return ChannelRule.BLOCK if self.axis == 1 else ChannelRule.PASS

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = operands(self, inputs, 1)
        require_float(self, x)
        require_axis(self, self.axis, x)
        return (x,)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        if not x.size:
            return (x.copy(),)
        # Shifted by the maximum, so that exp cannot overflow.
        powers = np.exp(x - x.max(axis=self.axis, keepdims=True))
        return (powers / powers.sum(axis=self.axis, keepdims=True, dtype=x.dtype),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        """dx = y * (dy - sum(dy * y))."""
        (y,) = outputs
        (dy,) = gradients
        total = build.emit(ReduceSum((self.axis,), keepdims=True), build.emit(Mul(), dy, y))
        return (build.emit(Mul(), y, build.emit(Sub(), dy, total)),)
