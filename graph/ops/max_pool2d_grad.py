"""Gradient of max pooling: each window sends its gradient to the tap that was taken."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import ChannelRule, Op, type_error
from edgec.graph.ops.checks import operands, require_float
from edgec.graph.ops.max_pool2d_positions import position_dtype
from edgec.graph.ops.window import Pads, Pair, Window, check_pool
from edgec.graph.types import TensorType


@dataclass(frozen=True)
class MaxPool2dGrad(Op):
    """dy[N,C,OH,OW], positions[N,C,OH,OW] of `max_pool2d_positions` -> dx[N,C,H,W] with (H,W) = `input_size`; the other
    attributes are those of the pool.
    """

    name: ClassVar[str] = "max_pool2d_grad"
    channel_rule: ClassVar[ChannelRule] = ChannelRule.PASS
    no_gradient: ClassVar[str | None] = "gradients of gradients are not derived"

    kernel_size: Pair
    strides: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    dilations: Pair = (1, 1)
    input_size: Pair = field(kw_only=True)

    @property
    def window(self) -> Window:
        return Window(self.input_size, self.kernel_size, self.strides, self.pads, self.dilations)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        dy, positions = operands(self, inputs, 2)
        require_float(self, dy)
        if dy.rank != 4:
            raise type_error(self, "operand 0 must have rank 4", *inputs)
        check_pool(self, self.window, dy)
        wanted = TensorType(position_dtype(self.kernel_size), (*dy.shape[:2], *self.window.output))
        if positions != wanted or dy.shape != wanted.shape:
            raise type_error(self, f"positions must be {wanted}, and dy of their shape", *inputs)
        return (dy.with_shape((*dy.shape[:2], *self.input_size)),)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        dy, positions = inputs
        dx = np.zeros((*dy.shape[:2], *self.window.padded), dy.dtype)
        for i, j, where in self.window.taps():
            dx[:, :, *where] += np.where(positions == i * self.kernel_size[1] + j, dy, 0)
        return (self.window.crop(dx),)
