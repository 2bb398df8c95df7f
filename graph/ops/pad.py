"""A border around a tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops import slice as slicing  # the module: slice and pad are each other's adjoint
from edgec.graph.ops.base import ChannelRule, GradientBuilder, Op, Tolerance, type_error
from edgec.graph.ops.checks import operands, require_per_axis
from edgec.graph.types import DType, TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Pad(Op):
    """`low[i]` elements `value` before and `high[i]` after axis i of x."""

    name: ClassVar[str] = "pad"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT

    low: tuple[int, ...]
    high: tuple[int, ...]
    value: float = 0.0

    @property
    def channel_rule(self) -> ChannelRule:
        return ChannelRule.BLOCK if self.low[1:2] != (0,) or self.high[1:2] != (0,) else ChannelRule.PASS

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = operands(self, inputs, 1)
        require_per_axis(self, "low", self.low, x)
        require_per_axis(self, "high", self.high, x)
        if min((*self.low, *self.high), default=0) < 0:
            raise type_error(self, f"low={self.low}, high={self.high} is negative", x, hint="cut with slice")
        if not x.dtype.is_float and not self._fits(x):
            raise type_error(self, f"value {self.value} is no {x.dtype.value}", x)
        return (x.with_shape(self._padded(x.shape)),)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        y = np.full(self._padded(x.shape), self.value, x.dtype)
        y[tuple(slice(start, start + n) for start, n in zip(self.low, x.shape, strict=True))] = x
        return (y,)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        (x,) = inputs
        (dy,) = gradients
        ends = tuple(start + n for start, n in zip(self.low, x.type.shape, strict=True))
        return (build.emit(slicing.Slice(self.low, ends, (1,) * x.type.rank), dy),)

    def _padded(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sum(extents) for extents in zip(self.low, shape, self.high, strict=True))

    def _fits(self, x: TensorType) -> bool:
        """Whether `value` is one of the numbers of an integer dtype (or 0 or 1 of bool)."""
        if x.dtype is DType.BOOL:
            return self.value in (0, 1)
        limits = np.iinfo(x.dtype.numpy)
        return float(self.value).is_integer() and limits.min <= self.value <= limits.max
