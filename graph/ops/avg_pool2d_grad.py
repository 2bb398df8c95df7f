"""Gradient of average pooling: each window spreads its gradient evenly over its taps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops import avg_pool2d  # a module: the two ops refer to each other
from edgec.graph.ops.base import ChannelRule, GradientBuilder, Op, Tolerance, type_error
from edgec.graph.ops.window import Pads, Pair, Window, check_operands, check_pool
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class AvgPool2dGrad(Op):
    """dy[N,C,OH,OW] -> dx[N,C,H,W] with (H,W) = `input_size`; the other attributes are those of `avg_pool2d`."""

    name: ClassVar[str] = "avg_pool2d_grad"
    tolerance: ClassVar[Tolerance] = Tolerance.ACCUMULATION
    channel_rule: ClassVar[ChannelRule] = ChannelRule.PASS

    kernel_size: Pair
    strides: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    count_include_pad: bool = False
    input_size: Pair = field(kw_only=True)

    @property
    def window(self) -> Window:
        return Window(self.input_size, self.kernel_size, self.strides, self.pads, (1, 1))

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (dy,) = check_operands(self, inputs, 4)
        check_pool(self, self.window, dy)
        if dy.shape[2:] != self.window.output:
            oh, ow = self.window.output
            raise type_error(self, f"dy must be {oh}x{ow} for an input of {self.input_size}", dy)
        return (dy.with_shape((*dy.shape[:2], *self.input_size)),)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (dy,) = inputs
        window = self.window
        share = dy / window.divisor(self.count_include_pad, dy.dtype)
        padded = np.zeros((*dy.shape[:2], *window.padded), dy.dtype)
        for _, _, where in window.taps():
            padded[:, :, *where] += share
        return (window.crop(padded),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        pool = avg_pool2d.AvgPool2d(self.kernel_size, self.strides, self.pads, self.count_include_pad)
        return (build.emit(pool, gradients[0]),)
