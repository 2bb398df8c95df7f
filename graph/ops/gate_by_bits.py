"""Passes elements whose bit is set: the gradient of a clip or relu, from what `inside_bits` has kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import Op, Tolerance, type_error
from edgec.graph.ops.checks import operands, require_float
from edgec.graph.ops.inside_bits import BITS, packed_shape
from edgec.graph.types import DType, TensorType


@dataclass(frozen=True)
class GateByBits(Op):
    """dy[.., n, ..], bits u8[.., ceil(n / 8), ..] -> dx: dy where its bit is set, else 0. Bits as of `inside_bits`."""

    name: ClassVar[str] = "gate_by_bits"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT
    no_gradient: ClassVar[str | None] = "gradients of gradients are not derived"

    axis: int

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        dy, bits = operands(self, inputs, 2)
        require_float(self, dy)
        if not 0 <= self.axis < dy.rank:
            raise type_error(self, f"there is no axis {self.axis}", *inputs)
        if bits != TensorType(DType.U8, packed_shape(dy.shape, self.axis)):
            raise type_error(self, f"bits must be u8{list(packed_shape(dy.shape, self.axis))}", *inputs)
        return (dy,)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        dy, bits = inputs
        planes = np.stack([(bits >> j) & 1 for j in range(BITS)], self.axis)
        count = bits.shape[self.axis]
        set_ = planes.reshape(*dy.shape[: self.axis], BITS * count, *dy.shape[self.axis + 1 :])
        set_ = np.take(set_, range(dy.shape[self.axis]), self.axis)
        return (np.where(set_ != 0, dy, dy.dtype.type(0)),)
