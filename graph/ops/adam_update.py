"""One step of Adam (Kingma and Ba, arXiv:1412.6980) or AdamW (Loshchilov and Hutter, arXiv:1711.05101), as torch.optim
does it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import ChannelRule, Op, type_error
from edgec.graph.ops.checks import operands, require_float
from edgec.graph.types import DType, TensorType


@dataclass(frozen=True)
class AdamUpdate(Op):
    """param, grad, lr, c1, c2, exp_avg m, exp_avg_sq v -> param, m, v. lr, c1 and c2 are f32[].

        g = grad + weight_decay * param            (Adam)
        param = param - lr * weight_decay * param  (AdamW: `decoupled`)
        m = m + (1 - beta1) * (g - m);   v = beta2 * v + (1 - beta2) * g * g
        param = param - lr / c1 * m / (sqrt(v) / sqrt(c2) + epsilon)

    c1 and c2 correct the bias of averages that began at 0: `bias_correction` of the number of steps.
    """

    name: ClassVar[str] = "adam_update"
    channel_rule: ClassVar[ChannelRule] = ChannelRule.PASS
    no_gradient: ClassVar[str | None] = "an optimizer's step is not differentiated"
    elementwise: ClassVar[bool] = True

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = False

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        param, grad, *scalars, m, v = operands(self, inputs, 7)
        require_float(self, param)
        if any(kind != param for kind in (grad, m, v)) or any(kind != TensorType(DType.F32, ()) for kind in scalars):
            raise type_error(self, "gradient and averages have the parameter's type; lr, c1 and c2 are f32[]", *inputs)
        return param, param, param

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        param, grad, lr, c1, c2, m, v = inputs
        scalar = param.dtype.type
        lr, c1, c2 = scalar(lr), scalar(c1), scalar(c2)
        decay = scalar(self.weight_decay)
        if self.decoupled:
            param = param - lr * decay * param
        elif self.weight_decay:
            grad = grad + decay * param
        m = m + scalar(1 - self.beta1) * (grad - m)
        v = scalar(self.beta2) * v + scalar(1 - self.beta2) * grad * grad
        step = m / (np.sqrt(v) / np.sqrt(c2) + scalar(self.epsilon))
        return tuple(np.asarray(x) for x in (param - lr / c1 * step, m, v))
