"""Slices of a tensor, picked by run-time coordinates (ONNX `GatherND`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops import gather_nd_grad  # a module: the two refer to one another
from edgec.graph.ops.base import GradientBuilder, Op, Tolerance, type_error
from edgec.graph.ops.checks import operands
from edgec.graph.ops.indexing import require_elements, require_indices, wrapped
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class GatherNd(Op):
    """y[b..., i..., r...] = x[b..., indices[b..., i..., :], r...]: the last axis of indices[B..., I..., K] holds K
    coordinates behind the `batch_dims` axes that both operands share.
    """

    name: ClassVar[str] = "gather_nd"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT

    batch_dims: int = 0

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, indices = operands(self, inputs, 2)
        require_indices(self, indices, *inputs)
        batch = self.batch_dims
        if not 0 <= batch < min(x.rank, indices.rank) or x.shape[:batch] != indices.shape[:batch]:
            raise type_error(self, f"the operands do not share {batch} batch axes", *inputs)
        depth = indices.shape[-1]
        if not 1 <= depth <= x.rank - batch:
            raise type_error(self, f"{depth} coordinates for the {x.rank - batch} axes of x behind its batch", *inputs)
        y = x.with_shape((*indices.shape[:-1], *x.shape[batch + depth :]))
        require_elements(self, x, y.size, *inputs)
        return (y,)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        x, indices = inputs
        batch, depth = self.batch_dims, indices.shape[-1]
        count = math.prod(x.shape[:batch])
        flat = x.reshape(count, *x.shape[batch:])
        where = indices.reshape(count, math.prod(indices.shape[batch:-1]), depth)
        columns = [wrapped(where[..., axis], x.shape[batch + axis]) for axis in range(depth)]
        y = flat[(np.arange(count)[:, None], *columns)]
        return (y.reshape((*indices.shape[:-1], *x.shape[batch + depth :])),)

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
        return build.emit(gather_nd_grad.GatherNdGrad(x.type.shape, self.batch_dims), dy, indices), None
