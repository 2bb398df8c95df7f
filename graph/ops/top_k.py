"""The k largest or smallest elements along one axis, in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder, Op, Tolerance, type_error
from edgec.graph.ops.broadcast_to import BroadcastTo
from edgec.graph.ops.checks import operands, require_axis, require_number
from edgec.graph.ops.scatter_elements import ScatterElements
from edgec.graph.types import DType, TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class TopK(Op):
    """x -> values, i64 positions: the `k` largest (or smallest) elements along `axis`, best first; of equal ones the
    first. Where fewer than k elements are numbers, what stands behind them has no meaning.
    """

    name: ClassVar[str] = "top_k"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT

    axis: int
    k: int
    largest: bool = True

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = operands(self, inputs, 1)
        require_number(self, x)
        require_axis(self, self.axis, x)
        if not 1 <= self.k <= x.shape[self.axis]:
            raise type_error(self, f"k={self.k} elements of {x.shape[self.axis]} along axis {self.axis}", x)
        shape = (*x.shape[: self.axis], self.k, *x.shape[self.axis + 1 :])
        return x.with_shape(shape), TensorType(DType.I64, shape)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        if self.largest:  # backwards twice, so that the first of equal elements comes first
            order = np.flip(np.argsort(np.flip(x, self.axis), axis=self.axis, kind="stable"), self.axis)
            order = x.shape[self.axis] - 1 - order
        else:
            order = np.argsort(x, axis=self.axis, kind="stable")
        order = np.take(order, np.arange(self.k), axis=self.axis).astype(np.int64)
        return np.take_along_axis(x, order, self.axis), order

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        """Each value's gradient goes back to its position."""
        (x,), (_, positions), (dvalues, _) = inputs, outputs, gradients
        if dvalues is None:
            return (None,)
        zeros = build.emit(BroadcastTo(x.type.shape), build.constant(np.zeros((), np.float32)))
        return (build.emit(ScatterElements(self.axis, "add"), zeros, positions, dvalues),)
