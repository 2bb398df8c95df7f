"""A tensor repeated to a larger shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops import broadcasting  # the module: broadcast_to and reduce_sum are each other's adjoint
from edgec.graph.ops.base import ChannelRule, GradientBuilder, Op, Tolerance, type_error
from edgec.graph.ops.checks import operands, require_shape
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class BroadcastTo(Op):
    """x repeated along its axes of extent 1, and along new leading axes, to `shape`; as numpy.broadcast_to."""

    name: ClassVar[str] = "broadcast_to"
    elementwise: ClassVar[bool] = True
    channel_rule: ClassVar[ChannelRule] = ChannelRule.PASS
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT

    shape: tuple[int, ...]

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = operands(self, inputs, 1)
        require_shape(self, self.shape, x)
        y = x.with_shape(self.shape)
        if y.rank < x.rank or broadcasting.broadcast_shape(self, x, y) != y.shape:
            hint = "shapes align at the last axis, and only an extent of 1 can be repeated"
            raise type_error(self, f"the operand does not broadcast to {self.shape}", x, hint=hint)
        return (y,)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.broadcast_to(x, self.shape).copy(),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        (x,) = inputs
        (dy,) = gradients
        return (broadcasting.sum_to(build, dy, x.type),)
