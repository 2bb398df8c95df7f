"""What an op is: a frozen dataclass whose fields are its attributes, and the rules that belong to it.

One op, one file. A subclass states its type rule, a numpy reference, its gradient (or the reason why it has none), its
cost and how a slice of channels passes through it. Ops know nothing of graphs, files or targets.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from edgec.graph.errors import UserError
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


class Tolerance(enum.Enum):
    """How results of two correct implementations may differ (values: relative error in f32)."""

    EXACT = 0.0  # moves or compares data: to the bit
    ROUNDING = 1e-6  # a few roundings per element
    ACCUMULATION = 1e-4  # long sums in another order


class ChannelRule(enum.Enum):
    """How a slice of channels (axis 1; the last axis of matmul operands) passes through an op."""

    PASS = "pass"  # output channels are the input's, one to one: slice in, same slice out
    MIX = "mix"  # output channels are set by a weight's axis: slice the weight instead
    BLOCK = "block"  # channels lose their identity: a slice cannot pass


@dataclass(frozen=True)
class Cost:
    """Multiply-accumulates, and bytes read and written if every operand is touched once."""

    macs: int
    bytes: int


class GradientBuilder(ABC):
    """What a `vjp` may use to write its backward nodes; the compiler's autodiff implements it."""

    @abstractmethod
    def emit(self, op: Op, *inputs: Value) -> Value:
        """Append a node with one output."""

    @abstractmethod
    def emit_all(self, op: Op, *inputs: Value) -> tuple[Value, ...]:
        """Append a node with several outputs."""

    @abstractmethod
    def constant(self, array: np.ndarray) -> Value:
        """A constant; arrays of floats take the dtype of the gradient."""

    @abstractmethod
    def wanted(self, value: Value) -> bool:
        """Whether any trainable leaf depends on the gradient of `value`: skip the work if not."""


@dataclass(frozen=True)
class Op(ABC):
    """Base of all ops. Subclasses are frozen dataclasses with attributes of type int, float, bool, str or tuples."""

    name: ClassVar[str]
    tolerance: ClassVar[Tolerance] = Tolerance.ROUNDING
    channel_rule: ClassVar[ChannelRule] = ChannelRule.BLOCK
    no_gradient: ClassVar[str | None] = None  # the reason, where `vjp` does not exist
    elementwise: ClassVar[bool] = False  # out[i] depends on in[i] alone, with numpy broadcasting: may be fused

    @abstractmethod
    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        """Output types; `type_error` where the inputs do not fit."""

    @abstractmethod
    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """The meaning of the op in numpy, in the dtype of its inputs (f32 or f64)."""

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        """Gradients of the inputs, one per input (None: not differentiable or not wanted), from those of the outputs.

        A gradient has the type of its value. `gradients[i]` is None where nothing depends on output i; at least one is
        not None.
        """
        raise NotImplementedError(f"{self.name} has no gradient: {self.no_gradient}")

    def cost(self, inputs: tuple[TensorType, ...], outputs: tuple[TensorType, ...]) -> Cost:
        return Cost(0, sum(t.bytes for t in (*inputs, *outputs)))

    def attributes(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


def type_error(op: Op, message: str, *types: TensorType, hint: str | None = None) -> UserError:
    """The error for operands that do not fit; the caller that knows the node adds where."""
    operands = ", ".join(map(str, types))
    return UserError("E0201", f"{op.name}({operands}): {message}", hint=hint)
