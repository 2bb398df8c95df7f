"""Weighted sums of elements along one axis, from tables: every separable interpolation is this, axis by axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import ChannelRule, Cost, GradientBuilder, Op, Tolerance, type_error
from edgec.graph.ops.checks import operands, require_axis, require_float, require_same_dtype
from edgec.graph.ops.gather import Gather
from edgec.graph.ops.indexing import require_elements, require_indices, wrapped
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.ops.reshape import Reshape
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Resample(Op):
    """x[a..., n, b...], indices[m, taps], weights[m, taps] -> y[a..., i, b...] = sum over t of weights[i, t] *
    x[a..., indices[i, t], b...], the index standing for `axis`.
    """

    name: ClassVar[str] = "resample"
    tolerance: ClassVar[Tolerance] = Tolerance.ACCUMULATION

    axis: int

    @property
    def channel_rule(self) -> ChannelRule:
        return ChannelRule.BLOCK if self.axis == 1 else ChannelRule.PASS

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, indices, weights = operands(self, inputs, 3)
        require_axis(self, self.axis, x)
        require_indices(self, indices, *inputs)
        require_same_dtype(self, x, weights)
        require_float(self, x)
        if indices.rank != 2 or indices.shape != weights.shape:
            raise type_error(self, "indices and weights must have one shape [m, taps]", *inputs)
        require_elements(self, x, indices.size, *inputs)
        return (x.with_shape((*x.shape[: self.axis], indices.shape[0], *x.shape[self.axis + 1 :])),)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        x, indices, weights = inputs
        indices = wrapped(indices, x.shape[self.axis])
        rest = (1,) * (x.ndim - 1 - self.axis)
        shape = (*x.shape[: self.axis], len(indices), *x.shape[self.axis + 1 :])
        y = np.zeros(shape, x.dtype)
        for t in range(indices.shape[1]):
            y += np.take(x, indices[:, t], axis=self.axis) * weights[:, t].reshape(-1, *rest)
        return (y,)

    def cost(self, inputs: tuple[TensorType, ...], outputs: tuple[TensorType, ...]) -> Cost:
        taps = inputs[1].shape[1]
        return Cost(outputs[0].size * taps, sum(t.bytes for t in (*inputs, *outputs)))

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        """The same with transposed tables, where they are known at compile time; else that of single taps."""
        (x, indices, weights), (dy,) = inputs, gradients
        if not build.wanted(weights) and indices.data is not None and weights.data is not None:
            if not build.wanted(x):
                return None, None, None
            tables = transposed(indices.data, np.asarray(weights.data), x.type.shape[self.axis])
            return build.emit(Resample(self.axis), dy, *(build.constant(table) for table in tables)), None, None
        axis, shape = self.axis, dy.type.shape
        dy = build.emit(Reshape((*shape[: axis + 1], 1, *shape[axis + 1 :])), dy)  # one for all taps
        dx = dweights = None
        gather = Gather(axis)
        taps = build.emit(gather, x, indices)
        if build.wanted(x):
            factors = build.emit(Reshape((*weights.type.shape, *(1,) * (x.type.rank - 1 - axis))), weights)
            dx, _ = gather.vjp(build, (x, indices), (taps,), (build.emit(Mul(), dy, factors),))
        if build.wanted(weights):
            others = tuple(i for i in range(taps.type.rank) if i not in (axis, axis + 1))
            dweights = build.emit(ReduceSum(others), build.emit(Mul(), taps, dy))
        return dx, None, dweights


def transposed(indices: np.ndarray, weights: np.ndarray, extent: int) -> tuple[np.ndarray, np.ndarray]:
    """The tables [extent, taps] that carry a gradient back; short rows are filled up with weights of 0."""
    readers: list[list[tuple[int, float]]] = [[] for _ in range(extent)]
    for i, row in enumerate(wrapped(indices, extent)):
        for tap, j in enumerate(row):
            readers[j].append((i, float(weights[i, tap])))
    taps = max(1, *map(len, readers))
    table, factors = np.zeros((extent, taps), np.int32), np.zeros((extent, taps), weights.dtype)
    for j, found in enumerate(readers):
        for tap, (i, weight) in enumerate(found):
            table[j, tap], factors[j, tap] = i, weight
    return table, factors
