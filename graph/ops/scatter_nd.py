"""A tensor with slices replaced or added to, at run-time coordinates (ONNX `ScatterND`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder, Tolerance, type_error
from edgec.graph.ops.checks import operands, require_same_dtype
from edgec.graph.ops.gather_nd import GatherNd
from edgec.graph.ops.indexing import (
    apply_updates,
    require_elements,
    require_indices,
    require_reduction,
    wrapped,
)
from edgec.graph.ops.scatter import Scatter
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class ScatterNd(Scatter):
    """x[S..., R...], indices[I..., K], updates[I..., R...] -> x in which slice indices[i...] is updates[i...], or is
    combined with it: `reduction` is none, add, mul, min or max. Updates come in row-major order.
    """

    name: ClassVar[str] = "scatter_nd"
    tolerance: ClassVar[Tolerance] = Tolerance.ACCUMULATION

    reduction: str = "none"

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, indices, updates = operands(self, inputs, 3)
        require_indices(self, indices, *inputs)
        require_same_dtype(self, x, updates)
        require_reduction(self, self.reduction, *inputs)
        if not indices.rank or not 1 <= indices.shape[-1] <= x.rank:
            raise type_error(self, f"the last axis of indices must hold 1 to {x.rank} coordinates", *inputs)
        wanted = (*indices.shape[:-1], *x.shape[indices.shape[-1] :])
        if updates.shape != wanted:
            raise type_error(self, f"updates must have the shape {list(wanted)}", *inputs)
        require_elements(self, x, updates.size, *inputs)
        return (x,)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        x, indices, updates = inputs
        y, depth = x.copy(), indices.shape[-1]
        where = tuple(wrapped(indices[..., axis], x.shape[axis]).reshape(-1) for axis in range(depth))
        apply_updates(y, where, updates.reshape(len(where[0]), *x.shape[depth:]), self.reduction)
        return (y,)

    def picked(self, build: GradientBuilder, x: Value, indices: Value) -> Value:
        return build.emit(GatherNd(), x, indices)
