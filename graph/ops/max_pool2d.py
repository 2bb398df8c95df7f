"""Maximum over sliding windows; padding never wins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import ChannelRule, GradientBuilder, Op, Tolerance
from edgec.graph.ops.max_pool2d_grad import MaxPool2dGrad
from edgec.graph.ops.max_pool2d_positions import MaxPool2dPositions
from edgec.graph.ops.window import Pads, Pair, Window, check_operands, check_pool
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class MaxPool2d(Op):
    """x[N,C,H,W] -> y[N,C,OH,OW]; `pads` is (top, left, bottom, right)."""

    name: ClassVar[str] = "max_pool2d"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT
    channel_rule: ClassVar[ChannelRule] = ChannelRule.PASS

    kernel_size: Pair
    strides: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    dilations: Pair = (1, 1)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = check_operands(self, inputs, 4)
        window = Window(x.shape[2:], self.kernel_size, self.strides, self.pads, self.dilations)
        check_pool(self, window, x)
        return (x.with_shape((*x.shape[:2], *window.output)),)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        window = Window(x.shape[2:], self.kernel_size, self.strides, self.pads, self.dilations)
        padded = window.pad(x, -np.inf)
        y = np.full((*x.shape[:2], *window.output), -np.inf, x.dtype)
        for _, _, where in window.taps():
            y = np.maximum(y, padded[:, :, *where])
        return (y,)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        """Positions are taken anew here; the pass `keep_positions` lets the forward pool hand them out."""
        (x,), (dy,) = inputs, gradients
        window = (self.kernel_size, self.strides, self.pads, self.dilations)
        _, positions = build.emit_all(MaxPool2dPositions(*window), x)
        return (build.emit(MaxPool2dGrad(*window, input_size=x.type.shape[2:]), dy, positions),)
