"""What elementwise ops have in common: type rule, channel rule, and that they may be fused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgec.graph.ops.base import ChannelRule, Op
from edgec.graph.ops.broadcasting import broadcast_shape
from edgec.graph.ops.checks import operands, require_float, require_number, require_same_dtype, require_same_type
from edgec.graph.types import TensorType


@dataclass(frozen=True)
class Unary(Op):
    """x -> y of the same float type."""

    elementwise: ClassVar[bool] = True
    channel_rule: ClassVar[ChannelRule] = ChannelRule.PASS

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = operands(self, inputs, 1)
        require_float(self, x)
        return (x,)


@dataclass(frozen=True)
class Binary(Op):
    """a, b -> y: operands of one number dtype, broadcast as numpy does."""

    elementwise: ClassVar[bool] = True
    channel_rule: ClassVar[ChannelRule] = ChannelRule.PASS

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        a, b = operands(self, inputs, 2)
        require_same_dtype(self, a, b)
        require_number(self, a, b)
        return (a.with_shape(broadcast_shape(self, a, b)),)


@dataclass(frozen=True)
class UnaryGrad(Op):
    """dy, saved -> dx: the gradient of a `Unary`, from its input or its output; all three of one float type."""

    elementwise: ClassVar[bool] = True
    channel_rule: ClassVar[ChannelRule] = ChannelRule.PASS
    no_gradient: ClassVar[str | None] = "gradients of gradients are not derived"

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        dy, saved = operands(self, inputs, 2)
        require_same_type(self, dy, saved)
        require_float(self, dy, saved)
        return (dy,)
