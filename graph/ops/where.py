"""Choice between two tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import ChannelRule, GradientBuilder, Op, Tolerance, type_error
from edgec.graph.ops.broadcasting import broadcast_shape, sum_to
from edgec.graph.ops.checks import operands, require_same_dtype
from edgec.graph.types import DType, TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Where(Op):
    """condition[bool], a, b -> y = a where the condition holds, else b; of any one type, broadcast."""

    name: ClassVar[str] = "where"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT
    elementwise: ClassVar[bool] = True
    channel_rule: ClassVar[ChannelRule] = ChannelRule.PASS

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        condition, a, b = operands(self, inputs, 3)
        if condition.dtype is not DType.BOOL:
            raise type_error(self, f"the condition is {condition.dtype.value}, not bool", *inputs)
        require_same_dtype(self, a, b)
        return (a.with_shape(broadcast_shape(self, condition, a, b)),)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        condition, a, b = inputs
        return (np.where(condition, a, b),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        condition, a, b = inputs
        (dy,) = gradients
        zero = build.constant(np.array(0, np.float32))
        da = sum_to(build, build.emit(Where(), condition, dy, zero), a.type) if build.wanted(a) else None
        db = sum_to(build, build.emit(Where(), condition, zero, dy), b.type) if build.wanted(b) else None
        return None, da, db
