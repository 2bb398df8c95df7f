"""What the three convolution ops share: attributes, shapes of the parts, and products per kernel tap.

With `groups` g, channels are cut into g runs of C/g inputs and O/g outputs; group i of the output reads group i of the
input alone. Depthwise is g = C.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import Cost, Op, Tolerance, type_error
from edgec.graph.ops.window import Pads, Pair, Window, check_window
from edgec.graph.types import TensorType


@dataclass(frozen=True)
class Convolution(Op):
    """Attributes of a 2-D convolution; `pads` is (top, left, bottom, right)."""

    tolerance: ClassVar[Tolerance] = Tolerance.ACCUMULATION

    strides: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    dilations: Pair = (1, 1)
    groups: int = 1

    def window(self, size: Pair, kernel: Pair) -> Window:
        return Window(tuple(size), tuple(kernel), self.strides, self.pads, self.dilations)

    def same(self) -> dict:
        """The shared attributes, to build the other two ops of the same convolution."""
        return {"strides": self.strides, "pads": self.pads, "dilations": self.dilations, "groups": self.groups}

    def check(self, x: tuple[int, ...], w: tuple[int, ...], *types: TensorType) -> Window:
        """The window of a convolution of x[N,C,H,W] with w[O,C/g,kh,kw], or a type error about operands `types`."""
        g = self.groups
        if g < 1 or x[1] % g or w[0] % g:
            raise type_error(self, f"groups={g} must divide {x[1]} input and {w[0]} output channels", *types)
        if w[1] * g != x[1]:
            raise type_error(
                self,
                f"the weight reads {w[1]} channels per group and {g} groups, but the input has {x[1]} channels",
                *types,
            )
        window = self.window(x[2:], w[2:])
        check_window(self, window, *types)
        return window

    def macs(self, weight: tuple[int, ...], output: tuple[int, ...]) -> int:
        """The same number for all three: one per weight element, image and output position."""
        return math.prod(weight) * output[0] * output[2] * output[3]

    def cost_of(
        self,
        weight: tuple[int, ...],
        output: tuple[int, ...],
        inputs: tuple[TensorType, ...],
        outputs: tuple[TensorType, ...],
    ) -> Cost:
        return Cost(self.macs(weight, output), sum(t.bytes for t in (*inputs, *outputs)))


def split_channels(x: np.ndarray, groups: int) -> np.ndarray:
    """x[N,C,H,W] as [N,g,C/g,H*W]."""
    n, c, h, w = x.shape
    return x.reshape(n, groups, c // groups, h * w)


def grouped_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a[...,M,K] @ b[...,K,N]; K = 1 (depthwise) by broadcasting, since numpy would call a product per channel."""
    return a * b if a.shape[-1] == 1 else a @ b
