"""What elementwise ops have in common: type rule, channel rule, and that they may be fused."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from edgec.graph.ops.base import ChannelRule, GradientBuilder, Op, type_error
from edgec.graph.ops.broadcasting import broadcast_shape
from edgec.graph.ops.checks import operands, require_float, require_number, require_same_dtype, require_same_type
from edgec.graph.types import DType, TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


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
class NumberUnary(Unary):
    """x -> y of the same number type."""

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = operands(self, inputs, 1)
        require_number(self, x)
        return (x,)


@dataclass(frozen=True)
class SmoothUnary(Unary):
    """A `Unary` with a gradient: a subclass says how it passes one element's."""

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        (x,), (y,), (dy,) = inputs, outputs, gradients
        return (self.backward(build, dy, x, y),)

    @abstractmethod
    def backward(self, build: GradientBuilder, dy: Value, x: Value, y: Value) -> Value:
        """The gradient of x; one that reads x or y keeps it alive until the backward pass."""


@dataclass(frozen=True)
class SmoothNumberUnary(NumberUnary, SmoothUnary):
    """A `SmoothUnary` of any number; the gradient is that of floats."""


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
class Compare(Binary):
    """a, b -> y[bool]: operands of one dtype, broadcast."""

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        a, b = operands(self, inputs, 2)
        require_same_dtype(self, a, b)
        return (TensorType(DType.BOOL, broadcast_shape(self, a, b)),)


@dataclass(frozen=True)
class NumberCompare(Compare):
    """a, b -> y[bool]: operands of one number dtype, broadcast."""

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        outputs = super().infer(*inputs)
        require_number(self, *inputs)
        return outputs


@dataclass(frozen=True)
class BitsBinary(Binary):
    """a, b -> y: operands of one dtype, bool or an integer, broadcast."""

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        a, b = operands(self, inputs, 2)
        require_same_dtype(self, a, b)
        _require_bits(self, a, b)
        return (a.with_shape(broadcast_shape(self, a, b)),)


@dataclass(frozen=True)
class Shift(BitsBinary):
    """a, b -> y: integers of one dtype, broadcast."""

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        outputs = super().infer(*inputs)
        require_number(self, *inputs)
        return outputs


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


def _require_bits(op: Op, *inputs: TensorType) -> None:
    for kind in inputs:
        if kind.dtype.is_float:
            raise type_error(op, f"is defined on bool and integers, not on {kind.dtype.value}", *inputs)
