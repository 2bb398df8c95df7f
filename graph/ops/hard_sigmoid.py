"""Hard sigmoid: a line, clipped to [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder
from edgec.graph.ops.elementwise import SmoothUnary
from edgec.graph.ops.hard_sigmoid_grad import HardSigmoidGrad

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class HardSigmoid(SmoothUnary):
    """y = clip(alpha * x + beta, 0, 1). ONNX: alpha 0.2, beta 0.5; MobileNetV3 and torch: alpha 1/6, beta 0.5."""

    name: ClassVar[str] = "hard_sigmoid"

    alpha: float
    beta: float

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.clip(self.alpha * x + self.beta, 0, 1), dtype=x.dtype),)

    def backward(self, build: GradientBuilder, dy: Value, x: Value, y: Value) -> Value:
        return build.emit(HardSigmoidGrad(self.alpha), dy, y)
