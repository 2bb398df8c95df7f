"""Gradient of a convolution's weight: a reduction over images and output positions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops import conv2d, conv2d_input_grad  # modules: the three ops refer to one another
from edgec.graph.ops.base import Cost, GradientBuilder, type_error
from edgec.graph.ops.convolution import Convolution, split_channels
from edgec.graph.ops.window import Pair, check_operands
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Conv2dWeightGrad(Convolution):
    """x[N,C,H,W], dy[N,O,OH,OW] -> dw[O,C/g,kh,kw] with (kh,kw) = `kernel_size`."""

    name: ClassVar[str] = "conv2d_weight_grad"

    kernel_size: Pair = field(kw_only=True)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, dy = check_operands(self, inputs, 4, 4)
        if self.groups < 1 or x.shape[1] % self.groups:
            raise type_error(self, f"groups={self.groups} must divide {x.shape[1]} input channels", x, dy)
        w = (dy.shape[1], x.shape[1] // self.groups, *self.kernel_size)
        window = self.check(x.shape, w, x, dy)
        if dy.shape[0] != x.shape[0] or dy.shape[2:] != window.output:
            raise type_error(self, f"dy must have {x.shape[0]} images of {window.output[0]}x{window.output[1]}", x, dy)
        return (x.with_shape(w),)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        x, dy = inputs
        g = self.groups
        window = self.window(x.shape[2:], self.kernel_size)
        padded, parts = window.pad(x), split_channels(dy, g)
        depthwise = x.shape[1] == g
        dw = np.empty((g, dy.shape[1] // g, x.shape[1] // g, *self.kernel_size), x.dtype)
        for i, j, (rows, columns) in window.taps():
            tap = split_channels(padded[:, :, rows, columns], g)
            if depthwise:  # one long dot product per channel: numpy would call a product for each
                dw[..., i, j] = np.einsum("ngop,ngcp->goc", parts, tap)
            else:
                dw[..., i, j] = (parts @ np.swapaxes(tap, -1, -2)).sum(axis=0)
        return (dw.reshape(dy.shape[1], x.shape[1] // g, *self.kernel_size),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        (x, dy), (gradient,) = inputs, gradients
        dx = d_dy = None
        if build.wanted(x):
            input_grad = conv2d_input_grad.Conv2dInputGrad(**self.same(), input_size=x.type.shape[2:])
            dx = build.emit(input_grad, dy, gradient)
        if build.wanted(dy):
            d_dy = build.emit(conv2d.Conv2d(**self.same()), x, gradient)
        return dx, d_dy

    def cost(self, inputs: tuple[TensorType, ...], outputs: tuple[TensorType, ...]) -> Cost:
        return self.cost_of(outputs[0].shape, inputs[1].shape, inputs, outputs)
