"""Binary cross entropy of a logit: torch's `binary_cross_entropy_with_logits`, before its mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import ChannelRule, GradientBuilder, Op
from edgec.graph.ops.checks import operands, require_float, require_same_type
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.sigmoid import Sigmoid
from edgec.graph.ops.sub import Sub
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class BceLogits(Op):
    """logits x, targets t of the same type -> y = -(t * log s + (1 - t) * log(1 - s)) with s = sigmoid(x).

    Taken as x * (1 - t) + log(1 + exp(-x)) for x > 0, else as -x * t + log(1 + exp(x)): nothing overflows.
    """

    name: ClassVar[str] = "bce_logits"
    elementwise: ClassVar[bool] = True
    channel_rule: ClassVar[ChannelRule] = ChannelRule.PASS

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, t = operands(self, inputs, 2)
        require_float(self, x)
        require_same_type(self, x, t)
        return (x,)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        x, t = inputs
        return (np.asarray(x * np.where(x > 0, 1 - t, -t) + np.log1p(np.exp(-np.abs(x)))),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        """dx = (sigmoid(x) - t) * dy. Targets are data and get none."""
        x, t = inputs
        (dy,) = gradients
        return build.emit(Mul(), build.emit(Sub(), build.emit(Sigmoid(), x), t), dy), None
