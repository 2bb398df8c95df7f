"""A tensor with single elements replaced or added to, along one axis (ONNX `ScatterElements`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops import gather_elements  # a module: the two refer to one another
from edgec.graph.ops.base import GradientBuilder, Tolerance, type_error
from edgec.graph.ops.checks import operands, require_axis, require_same_dtype
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
class ScatterElements(Scatter):
    """x, indices, updates -> x in which element [i0, ..., indices[i], ...] (the index standing for `axis`) is
    updates[i], or is combined with it: `reduction` is none, add, mul, min or max. Updates come in row-major order.
    """

    name: ClassVar[str] = "scatter_elements"
    tolerance: ClassVar[Tolerance] = Tolerance.ACCUMULATION

    axis: int
    reduction: str = "none"

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, indices, updates = operands(self, inputs, 3)
        require_axis(self, self.axis, x)
        require_indices(self, indices, *inputs)
        require_same_dtype(self, x, updates)
        require_reduction(self, self.reduction, *inputs)
        if updates.shape != indices.shape:
            raise type_error(self, "there must be one update for each index", *inputs)
        if indices.rank != x.rank or any(
            n > extent for axis, (n, extent) in enumerate(zip(indices.shape, x.shape, strict=True)) if axis != self.axis
        ):
            raise type_error(self, f"indices do not lie within x on all axes but {self.axis}", *inputs)
        require_elements(self, x, indices.size, *inputs)
        return (x,)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        x, indices, updates = inputs
        y = x.copy()
        where = list(np.indices(indices.shape))
        where[self.axis] = wrapped(indices, x.shape[self.axis])
        apply_updates(y, tuple(where), updates, self.reduction)
        return (y,)

    def picked(self, build: GradientBuilder, x: Value, indices: Value) -> Value:
        return build.emit(gather_elements.GatherElements(self.axis), x, indices)
