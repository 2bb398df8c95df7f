"""Conversion between element types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import ChannelRule, GradientBuilder, Op, Tolerance, type_error
from edgec.graph.ops.checks import operands
from edgec.graph.types import DType, TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Cast(Op):
    """y = x in the element type `to` (its name in the text form).

    To a float: rounded to the nearest, ties to even. Float to integer: toward zero, first to i32 (i64 for i64), where
    what does not fit becomes the nearest end of the range and NaN 0, then as between integers. Between integers: the
    low bits. To bool: whether it is not 0.
    """

    name: ClassVar[str] = "cast"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT
    elementwise: ClassVar[bool] = True
    channel_rule: ClassVar[ChannelRule] = ChannelRule.PASS

    to: str

    @property
    def dtype(self) -> DType:
        return DType(self.to)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = operands(self, inputs, 1)
        if self.to not in [dtype.value for dtype in DType]:
            raise type_error(self, f"`{self.to}` is no element type", x)
        return (TensorType(self.dtype, x.shape),)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        to = self.dtype
        if to.is_float or to is DType.BOOL or x.dtype.kind in "iub":
            return (np.asarray(x.astype(to.numpy)),)
        wide = np.dtype(np.int64 if to is DType.I64 else np.int32)
        limits = np.iinfo(wide)
        x = x.astype(np.float64)
        whole = np.where((x > limits.min) & (x < limits.max), x, 0).astype(wide)
        whole = np.where(x <= limits.min, limits.min, np.where(x >= limits.max, limits.max, whole))
        return (np.asarray(whole.astype(wide).astype(to.numpy)),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        """Between floats: rounding is not seen. An integer on either side ends the path."""
        (x,), (dy,) = inputs, gradients
        if not (x.type.dtype.is_float and self.dtype.is_float):
            return (None,)
        return (build.emit(Cast(x.type.dtype.value), dy),)
