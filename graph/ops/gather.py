"""Slices of a tensor, picked along one axis by run-time indices (ONNX `Gather`, torch's embedding)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder, Op, Tolerance
from edgec.graph.ops.checks import operands, require_axis
from edgec.graph.ops.equal import Equal
from edgec.graph.ops.gather_nd_grad import GatherNdGrad
from edgec.graph.ops.indexing import require_elements, require_indices, wrapped
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.transpose import Transpose
from edgec.graph.ops.where import Where
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Gather(Op):
    """y[a..., i..., b...] = x[a..., indices[i...], b...], the index standing for `axis` of x.

    No gradient reaches slice number `padding` of x; -1 is none (torch's `padding_idx` of embeddings).
    """

    name: ClassVar[str] = "gather"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT

    axis: int
    padding: int = -1

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, indices = operands(self, inputs, 2)
        require_axis(self, self.axis, x)
        require_indices(self, indices, *inputs)
        y = x.with_shape((*x.shape[: self.axis], *indices.shape, *x.shape[self.axis + 1 :]))
        require_elements(self, x, y.size, *inputs)
        return (y,)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        x, indices = inputs
        return (np.asarray(np.take(x, wrapped(indices, x.shape[self.axis]), axis=self.axis)),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        """Each slice of dy is added where it came from: a scatter over axis 0, which `axis` becomes."""
        (x, indices), (dy,) = inputs, gradients
        if not build.wanted(x):
            return None, None
        axis, shape, count = self.axis, x.type.shape, indices.type.rank
        if axis:
            rank = dy.type.rank
            dy = build.emit(Transpose((*range(axis, axis + count), *range(axis), *range(axis + count, rank))), dy)
        if self.padding >= 0:
            number = build.constant(np.array(self.padding, indices.type.dtype.numpy))
            silent = build.emit(Reshape((*indices.type.shape, *(1,) * (len(shape) - 1))), indices)
            dy = build.emit(Where(), build.emit(Equal(), silent, number), build.constant(np.array(0, np.float32)), dy)
        columns = build.emit(Reshape((*indices.type.shape, 1)), indices)
        dx = build.emit(GatherNdGrad((shape[axis], *shape[:axis], *shape[axis + 1 :])), dy, columns)
        return (build.emit(Transpose((*range(1, axis + 1), 0, *range(axis + 1, len(shape)))), dx) if axis else dx), None
