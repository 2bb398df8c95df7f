"""One step of Lion (Chen et al., Symbolic Discovery of Optimization Algorithms, arXiv:2302.06675)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import ChannelRule, Op, type_error
from edgec.graph.ops.checks import operands, require_float
from edgec.graph.types import DType, TensorType


@dataclass(frozen=True)
class LionUpdate(Op):
    """param, grad, lr f32[], exp_avg m -> param, m.

    param = param - lr * (sign(beta1 * m + (1 - beta1) * grad) + weight_decay * param)
    m = beta2 * m + (1 - beta2) * grad
    """

    name: ClassVar[str] = "lion_update"
    channel_rule: ClassVar[ChannelRule] = ChannelRule.PASS
    no_gradient: ClassVar[str | None] = "an optimizer's step is not differentiated"
    elementwise: ClassVar[bool] = True

    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        param, grad, lr, m = operands(self, inputs, 4)
        require_float(self, param)
        if grad != param or m != param or lr != TensorType(DType.F32, ()):
            raise type_error(self, "gradient and average have the parameter's type, lr is f32[]", *inputs)
        return param, param

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        param, grad, lr, m = inputs
        scalar = param.dtype.type
        blend = scalar(self.beta1) * m + scalar(1 - self.beta1) * grad
        average = scalar(self.beta2) * m + scalar(1 - self.beta2) * grad
        step = np.sign(blend) + scalar(self.weight_decay) * param
        return np.asarray(param - scalar(lr) * step), np.asarray(average)
