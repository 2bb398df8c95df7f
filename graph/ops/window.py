"""Geometry of sliding windows over the two spatial axes: what convolutions and pools have in common.

`pads` is (top, left, bottom, right). Along one axis, tap `i` of window `o` reads position
`o * stride + i * dilation - low`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgec.graph.ops.base import Op, type_error
from edgec.graph.ops.checks import operands, require_float, require_same_dtype
from edgec.graph.types import TensorType

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]


@dataclass(frozen=True)
class Window:
    """Windows of `kernel` taps over an input of `size` (H, W)."""

    size: Pair
    kernel: Pair
    strides: Pair
    pads: Pads
    dilations: Pair

    @property
    def low(self) -> Pair:
        return self.pads[:2]

    @property
    def high(self) -> Pair:
        return self.pads[2:]

    @property
    def padded(self) -> Pair:
        """(H, W) of the padded input."""
        h, w = (n + low + high for n, low, high in zip(self.size, self.low, self.high, strict=True))
        return h, w

    @property
    def output(self) -> Pair:
        """(OH, OW); not positive where the window does not fit."""
        oh, ow = (
            (n - d * (k - 1) - 1) // s + 1
            for n, k, s, d in zip(self.padded, self.kernel, self.strides, self.dilations, strict=True)
        )
        return oh, ow

    def taps(self) -> Iterator[tuple[int, int, tuple[slice, slice]]]:
        """(i, j, rows and columns of the padded input that tap (i, j) of all windows reads), in row-major order."""
        oh, ow = self.output
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                top, left = i * self.dilations[0], j * self.dilations[1]
                rows = slice(top, top + (oh - 1) * self.strides[0] + 1, self.strides[0])
                columns = slice(left, left + (ow - 1) * self.strides[1] + 1, self.strides[1])
                yield i, j, (rows, columns)

    def pad(self, x: np.ndarray, value: float = 0.0) -> np.ndarray:
        """`x[..., H, W]` with the border filled with `value`."""
        edges = [(0, 0)] * (x.ndim - 2) + list(zip(self.low, self.high, strict=True))
        return np.pad(x, edges, constant_values=value)

    def crop(self, padded: np.ndarray) -> np.ndarray:
        """The inverse of `pad`."""
        top, left = self.low
        return np.ascontiguousarray(padded[..., top : top + self.size[0], left : left + self.size[1]])

    def divisor(self, count_include_pad: bool, dtype: np.dtype) -> np.ndarray:
        """What a mean divides by: all taps, or [OH,OW] with those of each window that lie inside the input."""
        if count_include_pad:
            return np.asarray(math.prod(self.kernel), dtype)
        inside = self.pad(np.ones(self.size, dtype))
        total = np.zeros(self.output, dtype)
        for _, _, where in self.taps():
            total += inside[where]
        return total


def check_window(op: Op, window: Window, *types: TensorType) -> None:
    """`type_error` unless the attributes are in range and at least one window fits."""
    for name, values, low in (
        ("kernel_size", window.kernel, 1),
        ("strides", window.strides, 1),
        ("dilations", window.dilations, 1),
        ("pads", window.pads, 0),
    ):
        wanted = 4 if name == "pads" else 2
        if len(values) != wanted or min(values) < low:
            raise type_error(op, f"{name}={values} must be {wanted} integers of at least {low}", *types)
    if min(window.output) < 1:
        h, w = window.padded
        raise type_error(
            op,
            f"a {window.kernel[0]}x{window.kernel[1]} window with dilations {window.dilations} does not fit "
            f"into the padded input of {h}x{w}",
            *types,
            hint="the input is too small for this model",
        )


def check_operands(op: Op, inputs: tuple[TensorType, ...], *ranks: int) -> tuple[TensorType, ...]:
    """`inputs`, if they are floats of one dtype, one for each of `ranks` and of that rank."""
    operands(op, inputs, len(ranks))
    for position, (kind, rank) in enumerate(zip(inputs, ranks, strict=True)):
        if kind.rank != rank:
            raise type_error(op, f"operand {position} must have rank {rank}", *inputs)
    require_same_dtype(op, *inputs)
    require_float(op, *inputs)
    return inputs


def check_pool(op: Op, window: Window, *types: TensorType) -> None:
    """`check_window`, and no window may lie wholly in the padding: it would have no maximum and no mean."""
    check_window(op, window, *types)
    for axis, name in enumerate(("rows", "columns")):
        starts = np.arange(window.output[axis]) * window.strides[axis] - window.low[axis]
        taps = starts[:, None] + np.arange(window.kernel[axis]) * window.dilations[axis]
        if not ((taps >= 0) & (taps < window.size[axis])).any(axis=1).all():
            raise type_error(
                op,
                f"pads={window.pads} put a whole window of {name} outside the input",
                *types,
                hint="pad less than the window's extent",
            )
