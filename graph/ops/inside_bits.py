"""Which elements lie strictly inside an interval, a bit each: all that the gradient of a clip or relu has to keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import Op, Tolerance, type_error
from edgec.graph.ops.checks import operands, require_float
from edgec.graph.types import DType, TensorType

BITS = 8  # of a byte


@dataclass(frozen=True)
class InsideBits(Op):
    """x[.., n, ..] -> bits u8[.., ceil(n/8), ..] along `axis`: bit j of byte b is low < x < high at j * ceil(n/8) + b.

    So the elements of neighbouring bytes are neighbours, and a vector of bytes is made of eight vectors.
    """

    name: ClassVar[str] = "inside_bits"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT
    no_gradient: ClassVar[str | None] = "it decides, and is constant around almost every point"

    low: float
    high: float
    axis: int

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = operands(self, inputs, 1)
        require_float(self, x)
        if not 0 <= self.axis < x.rank:
            raise type_error(self, f"there is no axis {self.axis}", x)
        return (TensorType(DType.U8, packed_shape(x.shape, self.axis)),)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        inside = np.moveaxis((x > self.low) & (x < self.high), self.axis, 0)
        count = packed_extent(len(inside))
        missing = BITS * count - len(inside)
        inside = np.concatenate([inside, np.zeros((missing, *inside.shape[1:]), bool)])
        planes = inside.reshape(BITS, count, *inside.shape[1:]).astype(np.uint8)
        bits = np.bitwise_or.reduce([plane << j for j, plane in enumerate(planes)])
        return (np.ascontiguousarray(np.moveaxis(bits.astype(np.uint8), 0, self.axis)),)


def packed_extent(extent: int) -> int:
    return -(-extent // BITS)


def packed_shape(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], packed_extent(shape[axis]), *shape[axis + 1 :])
