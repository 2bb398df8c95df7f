"""2-D convolution (cross-correlation, as in ONNX `Conv` and torch) without bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops import conv2d_input_grad, conv2d_weight_grad  # modules: the three ops refer to one another
from edgec.graph.ops.base import ChannelRule, Cost, GradientBuilder
from edgec.graph.ops.convolution import Convolution, grouped_product, split_channels
from edgec.graph.ops.window import check_operands
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Conv2d(Convolution):
    """x[N,C,H,W], w[O,C/g,kh,kw] -> y[N,O,OH,OW]."""

    name: ClassVar[str] = "conv2d"
    channel_rule: ClassVar[ChannelRule] = ChannelRule.MIX

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, w = check_operands(self, inputs, 4, 4)
        window = self.check(x.shape, w.shape, x, w)
        return (x.with_shape((x.shape[0], w.shape[0], *window.output)),)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        x, w = inputs
        window = self.window(x.shape[2:], w.shape[2:])
        g, padded = self.groups, window.pad(x)
        taps = w.reshape(g, w.shape[0] // g, w.shape[1], *w.shape[2:])
        y = np.zeros((x.shape[0], g, w.shape[0] // g, window.output[0] * window.output[1]), x.dtype)
        for i, j, (rows, columns) in window.taps():
            y += grouped_product(taps[..., i, j], split_channels(padded[:, :, rows, columns], g))
        return (y.reshape(x.shape[0], w.shape[0], *window.output),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        (x, w), (dy,) = inputs, gradients
        dx = dw = None
        if build.wanted(x):
            input_grad = conv2d_input_grad.Conv2dInputGrad(**self.same(), input_size=x.type.shape[2:])
            dx = build.emit(input_grad, dy, w)
        if build.wanted(w):
            weight_grad = conv2d_weight_grad.Conv2dWeightGrad(**self.same(), kernel_size=w.type.shape[2:])
            dw = build.emit(weight_grad, x, dy)
        return dx, dw

    def cost(self, inputs: tuple[TensorType, ...], outputs: tuple[TensorType, ...]) -> Cost:
        return self.cost_of(inputs[1].shape, outputs[0].shape, inputs, outputs)
