"""Mean over sliding windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops import avg_pool2d_grad  # a module: the two ops refer to each other
from edgec.graph.ops.base import ChannelRule, GradientBuilder, Op, Tolerance
from edgec.graph.ops.window import Pads, Pair, Window, check_operands, check_pool
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class AvgPool2d(Op):
    """x[N,C,H,W] -> y[N,C,OH,OW]; `pads` is (top, left, bottom, right).

    Windows are divided by the number of taps inside the input, or by all taps with `count_include_pad`.
    """

    name: ClassVar[str] = "avg_pool2d"
    tolerance: ClassVar[Tolerance] = Tolerance.ACCUMULATION
    channel_rule: ClassVar[ChannelRule] = ChannelRule.PASS

    kernel_size: Pair
    strides: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    count_include_pad: bool = False

    def window(self, size: Pair) -> Window:
        return Window(size, self.kernel_size, self.strides, self.pads, (1, 1))

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = check_operands(self, inputs, 4)
        window = self.window(x.shape[2:])
        check_pool(self, window, x)
        return (x.with_shape((*x.shape[:2], *window.output)),)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        window = self.window(x.shape[2:])
        padded = window.pad(x)
        y = np.zeros((*x.shape[:2], *window.output), x.dtype)
        for _, _, where in window.taps():
            y += padded[:, :, *where]
        return (y / window.divisor(self.count_include_pad, x.dtype),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        (x,), (dy,) = inputs, gradients
        grad = avg_pool2d_grad.AvgPool2dGrad(
            self.kernel_size, self.strides, self.pads, self.count_include_pad, input_size=x.type.shape[2:]
        )
        return (build.emit(grad, dy),)
