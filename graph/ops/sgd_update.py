"""One step of stochastic gradient descent, as torch.optim.SGD does it (maximize=False, dampening=0)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import ChannelRule, Op, type_error
from edgec.graph.ops.checks import operands, require_float
from edgec.graph.types import DType, TensorType


@dataclass(frozen=True)
class SgdUpdate(Op):
    """param, grad, lr f32[] -> param; with momentum: param, grad, lr, velocity -> param, velocity.

        g = grad + weight_decay * param
        velocity = momentum * velocity + g;   g = g + momentum * velocity if nesterov else velocity
        param = param - lr * g

    A velocity of zeros before the first step gives torch's first step, which copies the gradient.
    """

    name: ClassVar[str] = "sgd_update"
    channel_rule: ClassVar[ChannelRule] = ChannelRule.PASS
    no_gradient: ClassVar[str | None] = "an optimizer's step is not differentiated"
    elementwise: ClassVar[bool] = True

    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        param, grad, lr, *rest = operands(self, inputs, 4 if self.momentum else 3)
        require_float(self, param)
        if grad != param or lr != TensorType(DType.F32, ()) or any(velocity != param for velocity in rest):
            raise type_error(self, "gradient and velocity have the parameter's type, lr is f32[]", *inputs)
        if self.nesterov and not self.momentum:
            raise type_error(self, "nesterov needs a momentum", *inputs)
        return (param, param) if self.momentum else (param,)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        param, grad, lr, *rest = inputs
        scalar = param.dtype.type
        lr = scalar(lr)
        step = grad + scalar(self.weight_decay) * param if self.weight_decay else grad
        if not rest:
            return (np.asarray(param - lr * step),)
        velocity = scalar(self.momentum) * rest[0] + step
        step = step + scalar(self.momentum) * velocity if self.nesterov else velocity
        return np.asarray(param - lr * step), np.asarray(velocity)
