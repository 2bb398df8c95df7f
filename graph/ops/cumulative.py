"""What `cum_sum` and `cum_prod` have in common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgec.graph.ops.base import ChannelRule, Op
from edgec.graph.ops.checks import operands, require_axis, require_number
from edgec.graph.types import TensorType


@dataclass(frozen=True)
class Cumulative(Op):
    """y[i] combines x[0] to x[i] along `axis`; without x[i] itself if `exclusive`, from the end if `reverse`."""

    axis: int
    exclusive: bool = False
    reverse: bool = False

    @property
    def channel_rule(self) -> ChannelRule:
        return ChannelRule.BLOCK if self.axis == 1 else ChannelRule.PASS

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = operands(self, inputs, 1)
        require_number(self, x)
        require_axis(self, self.axis, x)
        return (x,)

    def accumulate(self, function: np.ufunc, neutral: int, x: np.ndarray) -> np.ndarray:
        x = np.moveaxis(x, self.axis, 0)
        x = x[::-1] if self.reverse else x
        y = function.accumulate(x, axis=0, dtype=x.dtype)
        if self.exclusive:
            y = np.concatenate([np.full_like(y[:1], neutral), y[:-1]])
        y = y[::-1] if self.reverse else y
        return np.ascontiguousarray(np.moveaxis(y, 0, self.axis))
