"""Gradient of what was picked by run-time coordinates: an embedding's is this."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops import gather_nd  # a module: the two refer to one another
from edgec.graph.ops.base import Op, Tolerance, type_error
from edgec.graph.ops.checks import operands, require_float, require_shape
from edgec.graph.ops.indexing import wrapped
from edgec.graph.types import TensorType


@dataclass(frozen=True)
class GatherNdGrad(Op):
    """dy, indices -> dx of `shape`, all 0 but for slices of dy, added in order at their coordinates; `batch_dims` is
    that of `gather_nd`.
    """

    name: ClassVar[str] = "gather_nd_grad"
    tolerance: ClassVar[Tolerance] = Tolerance.ACCUMULATION
    no_gradient: ClassVar[str | None] = "gradients of gradients are not derived"

    shape: tuple[int, ...]
    batch_dims: int = 0

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        dy, indices = operands(self, inputs, 2)
        require_float(self, dy)
        require_shape(self, self.shape, *inputs)
        x = dy.with_shape(self.shape)
        if gather_nd.GatherNd(self.batch_dims).infer(x, indices) != (dy,):
            raise type_error(self, f"dy is not what gather_nd picks out of {x}", *inputs)
        return (x,)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        dy, indices = inputs
        batch, depth = self.batch_dims, indices.shape[-1]
        count, inner = math.prod(self.shape[:batch]), self.shape[batch:]
        where = indices.reshape(count, -1, depth)
        columns = [wrapped(where[..., axis], inner[axis]) for axis in range(depth)]
        dx = np.zeros((count, *inner), dy.dtype)
        np.add.at(dx, (np.arange(count)[:, None], *columns), dy.reshape(count, -1, *inner[depth:]))
        return (dx.reshape(self.shape),)
