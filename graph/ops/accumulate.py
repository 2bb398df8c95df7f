"""Adding up gradients of several steps, or beginning anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import ChannelRule, Op, type_error
from edgec.graph.ops.checks import operands, require_float
from edgec.graph.types import DType, TensorType


@dataclass(frozen=True)
class Accumulate(Op):
    """held, new, keep f32[] -> held + new, or where keep is 0 `new` alone, whatever was held (NaN, too)."""

    name: ClassVar[str] = "accumulate"
    channel_rule: ClassVar[ChannelRule] = ChannelRule.PASS
    no_gradient: ClassVar[str | None] = "an optimizer's step is not differentiated"
    elementwise: ClassVar[bool] = True

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        held, new, keep = operands(self, inputs, 3)
        require_float(self, held)
        if new != held or keep != TensorType(DType.F32, ()):
            raise type_error(self, "what is added has the type of what is held, keep is f32[]", *inputs)
        return (held,)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        held, new, keep = inputs
        return (np.asarray(new + held if keep != 0 else new.copy()),)
