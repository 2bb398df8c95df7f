"""The form in which a value of the forward part waits for the backward part: half floats, or bytes with scales.

As activation compressed training does (ActNN, arXiv:2104.14129; GACT, arXiv:2206.11357), with rounding to nearest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import ChannelRule, Op, Tolerance, type_error
from edgec.graph.ops.broadcasting import broadcast_shape
from edgec.graph.ops.checks import operands
from edgec.graph.types import DType, TensorType

LARGEST_F16 = 65504.0
STEPS = 254  # of a byte's range: one less than it has, as both of its ends are rounded


@dataclass(frozen=True)
class Compress(Op):
    """x f32 -> f16; or x f32, inverse, zero -> u8: round(x * inverse) - zero. To nearest, ties to even; what lies
    beyond the range becomes its end, never infinite. `inverse` and `zero` are f32, and broadcast to x.
    """

    name: ClassVar[str] = "compress"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT
    elementwise: ClassVar[bool] = True
    channel_rule: ClassVar[ChannelRule] = ChannelRule.PASS
    no_gradient: ClassVar[str | None] = "gradients of gradients are not derived"

    to: str

    @property
    def dtype(self) -> DType:
        return DType(self.to)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, *_ = check_form(self, self.dtype, inputs)
        if x.dtype is not DType.F32:
            raise type_error(self, "x must be f32", *inputs)
        return (TensorType(self.dtype, x.shape),)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        x, *scaling = inputs
        if not scaling:
            return (np.clip(x, -LARGEST_F16, LARGEST_F16).astype(np.float16),)
        inverse, zero = scaling
        steps = np.nan_to_num(np.round(x * inverse) - zero, nan=0.0)
        return (np.clip(steps, 0, 255).astype(np.uint8),)


def check_form(op: Op, dtype: DType, inputs: tuple[TensorType, ...]) -> tuple[TensorType, ...]:
    """`inputs`, if there are as many as a value kept as `dtype` takes, and the last two are f32 and broadcast."""
    if dtype not in (DType.F16, DType.U8):
        raise type_error(op, f"nothing is kept as {dtype.value}", *inputs, hint="there are f16 and u8")
    x, *scaling = operands(op, inputs, 1 if dtype is DType.F16 else 3)
    for kind in scaling:
        if kind.dtype is not DType.F32 or broadcast_shape(op, x, kind) != x.shape:
            raise type_error(op, "scales and zeros must be f32 and broadcast to the value", *inputs)
    return inputs
