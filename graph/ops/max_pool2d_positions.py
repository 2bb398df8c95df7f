"""Max pooling that also says which tap of each window was taken: all that its gradient has to keep."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import ChannelRule, Op, Tolerance
from edgec.graph.ops.window import Pads, Pair, Window, check_operands, check_pool
from edgec.graph.types import DType, TensorType


@dataclass(frozen=True)
class MaxPool2dPositions(Op):
    """x[N,C,H,W] -> y[N,C,OH,OW] of `max_pool2d`, positions[N,C,OH,OW]: row-major numbers of taps within the window.

    Of equal maxima the first counts, of several NaNs the last, as in torch. Positions are u8, of windows with more than
    256 taps i32.
    """

    name: ClassVar[str] = "max_pool2d_positions"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT
    channel_rule: ClassVar[ChannelRule] = ChannelRule.PASS
    no_gradient: ClassVar[str | None] = "gradients of gradients are not derived"

    kernel_size: Pair
    strides: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    dilations: Pair = (1, 1)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = check_operands(self, inputs, 4)
        window = Window(x.shape[2:], self.kernel_size, self.strides, self.pads, self.dilations)
        check_pool(self, window, x)
        shape = (*x.shape[:2], *window.output)
        return x.with_shape(shape), TensorType(position_dtype(self.kernel_size), shape)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        window = Window(x.shape[2:], self.kernel_size, self.strides, self.pads, self.dilations)
        padded, inside = window.pad(x), window.pad(np.ones(window.size, bool), False)
        y = np.full((*x.shape[:2], *window.output), -np.inf, x.dtype)
        positions = np.full(y.shape, -1)
        for i, j, where in window.taps():
            value = padded[:, :, *where]
            # A window of -inf alone takes its first tap inside the input.
            taken = inside[where] & ((value > y) | np.isnan(value) | (positions < 0))
            y = np.where(taken, value, y)
            positions = np.where(taken, i * self.kernel_size[1] + j, positions)
        return y, positions.astype(position_dtype(self.kernel_size).numpy)


def position_dtype(kernel_size: Pair) -> DType:
    """The smallest type of the graph that numbers all taps of a window."""
    return DType.U8 if math.prod(kernel_size) <= 256 else DType.I32
