"""Gradient of a convolution's input; as a forward op it is the transposed convolution."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops import conv2d, conv2d_weight_grad  # modules: the three ops refer to one another
from edgec.graph.ops.base import ChannelRule, Cost, GradientBuilder, type_error
from edgec.graph.ops.convolution import Convolution, grouped_product, split_channels
from edgec.graph.ops.window import Pair, check_operands
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Conv2dInputGrad(Convolution):
    """dy[N,O,OH,OW], w[O,C/g,kh,kw] -> dx[N,C,H,W] with (H,W) = `input_size`.

    The size is an attribute since a strided convolution maps several input sizes to one output size.
    """

    name: ClassVar[str] = "conv2d_input_grad"
    channel_rule: ClassVar[ChannelRule] = ChannelRule.MIX

    input_size: Pair = field(kw_only=True)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        dy, w = check_operands(self, inputs, 4, 4)
        x = (dy.shape[0], w.shape[1] * self.groups, *self.input_size)
        window = self.check(x, w.shape, dy, w)
        if dy.shape[1:] != (w.shape[0], *window.output):
            raise type_error(
                self, f"dy must have {w.shape[0]} channels of {window.output[0]}x{window.output[1]}", dy, w
            )
        return (dy.with_shape(x),)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        dy, w = inputs
        n, g = dy.shape[0], self.groups
        window = self.window(self.input_size, w.shape[2:])
        taps = w.reshape(g, w.shape[0] // g, w.shape[1], *w.shape[2:])
        parts = split_channels(dy, g)
        padded = np.zeros((n, w.shape[1] * g, *window.padded), dy.dtype)
        for i, j, (rows, columns) in window.taps():
            tap = np.swapaxes(taps[..., i, j], -1, -2)
            padded[:, :, rows, columns] += grouped_product(tap, parts).reshape(n, -1, *window.output)
        return (window.crop(padded),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        (dy, w), (gradient,) = inputs, gradients
        d_dy = dw = None
        if build.wanted(dy):
            d_dy = build.emit(conv2d.Conv2d(**self.same()), gradient, w)
        if build.wanted(w):
            weight_grad = conv2d_weight_grad.Conv2dWeightGrad(**self.same(), kernel_size=w.type.shape[2:])
            dw = build.emit(weight_grad, gradient, dy)
        return d_dy, dw

    def cost(self, inputs: tuple[TensorType, ...], outputs: tuple[TensorType, ...]) -> Cost:
        return self.cost_of(inputs[1].shape, inputs[0].shape, inputs, outputs)
