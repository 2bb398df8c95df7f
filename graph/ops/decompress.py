"""What `compress` has kept, as f32 again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import ChannelRule, Op, Tolerance, type_error
from edgec.graph.ops.compress import check_form
from edgec.graph.types import DType, TensorType


@dataclass(frozen=True)
class Decompress(Op):
    """kept f16 -> x f32; or kept u8, scale, zero -> (kept + zero) * scale. `scale` and `zero` broadcast."""

    name: ClassVar[str] = "decompress"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT
    elementwise: ClassVar[bool] = True
    channel_rule: ClassVar[ChannelRule] = ChannelRule.PASS
    no_gradient: ClassVar[str | None] = "gradients of gradients are not derived"

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        if not inputs:
            raise type_error(self, "takes a value that was kept")
        kept, *_ = check_form(self, inputs[0].dtype, inputs)
        return (TensorType(DType.F32, kept.shape),)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        kept, *scaling = inputs
        x = kept.astype(np.float32)
        if not scaling:
            return (x,)
        scale, zero = scaling
        return (np.asarray((x + zero) * scale, scale.dtype),)
