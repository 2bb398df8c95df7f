"""Single elements, picked along one axis by run-time indices (ONNX `GatherElements`, torch's `gather`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops import scatter_elements  # a module: the two refer to one another
from edgec.graph.ops.base import GradientBuilder, Op, Tolerance, type_error
from edgec.graph.ops.broadcast_to import BroadcastTo
from edgec.graph.ops.checks import operands, require_axis
from edgec.graph.ops.indexing import require_elements, require_indices, wrapped
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class GatherElements(Op):
    """y[i0, ..., ik, ...] = x[i0, ..., indices[i0, ..., ik, ...], ...], the index standing for `axis` of x."""

    name: ClassVar[str] = "gather_elements"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT

    axis: int

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, indices = operands(self, inputs, 2)
        require_axis(self, self.axis, x)
        require_indices(self, indices, *inputs)
        if indices.rank != x.rank or any(
            n > extent for axis, (n, extent) in enumerate(zip(indices.shape, x.shape, strict=True)) if axis != self.axis
        ):
            raise type_error(self, f"indices do not lie within x on all axes but {self.axis}", *inputs)
        require_elements(self, x, indices.size, *inputs)
        return (x.with_shape(indices.shape),)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        x, indices = inputs
        where = list(np.indices(indices.shape, sparse=True))
        where[self.axis] = wrapped(indices, x.shape[self.axis])
        return (x[tuple(where)],)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        (x, indices), (dy,) = inputs, gradients
        if not build.wanted(x):
            return None, None
        zeros = build.emit(BroadcastTo(x.type.shape), build.constant(np.zeros((), np.float32)))
        return build.emit(scatter_elements.ScatterElements(self.axis, "add"), zeros, indices, dy), None
