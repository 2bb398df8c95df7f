"""Hard swish (Howard et al., Searching for MobileNetV3, 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder
from edgec.graph.ops.elementwise import SmoothUnary
from edgec.graph.ops.hard_swish_grad import HardSwishGrad

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class HardSwish(SmoothUnary):
    """y = x * clip(x + 3, 0, 6) / 6."""

    name: ClassVar[str] = "hard_swish"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(x * np.clip(x + 3, 0, 6) / 6, dtype=x.dtype),)

    def backward(self, build: GradientBuilder, dy: Value, x: Value, y: Value) -> Value:
        return build.emit(HardSwishGrad(), dy, x)
