"""Gradient of max pooling: each window sends its gradient to its maximum, the first one in row-major order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import ChannelRule, Op, type_error
from edgec.graph.ops.window import Pads, Pair, Window, check_operands, check_pool
from edgec.graph.types import TensorType


@dataclass(frozen=True)
class MaxPool2dGrad(Op):
    """dy[N,C,OH,OW], x[N,C,H,W], y[N,C,OH,OW] -> dx[N,C,H,W]; the attributes are those of `max_pool2d`."""

    name: ClassVar[str] = "max_pool2d_grad"
    channel_rule: ClassVar[ChannelRule] = ChannelRule.PASS
    no_gradient: ClassVar[str | None] = "gradients of gradients are not derived"

    kernel_size: Pair
    strides: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    dilations: Pair = (1, 1)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        dy, x, y = check_operands(self, inputs, 4, 4, 4)
        window = Window(x.shape[2:], self.kernel_size, self.strides, self.pads, self.dilations)
        check_pool(self, window, *inputs)
        if not dy.shape == y.shape == (*x.shape[:2], *window.output):
            raise type_error(self, f"dy and y must have shape {(*x.shape[:2], *window.output)}", *inputs)
        return (x,)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        dy, x, y = inputs
        window = Window(x.shape[2:], self.kernel_size, self.strides, self.pads, self.dilations)
        padded = window.pad(x, -np.inf)
        dx = np.zeros(padded.shape, x.dtype)
        # A window of -inf alone equals its padding: a tap outside the input must not take the gradient.
        inside = window.pad(np.ones(window.size, bool), False)
        open_windows = np.ones(y.shape, bool)
        for _, _, where in window.taps():
            hit = open_windows & (padded[:, :, *where] == y) & inside[where]
            dx[:, :, *where] += np.where(hit, dy, 0)
            open_windows &= ~hit
        return (window.crop(dx),)
