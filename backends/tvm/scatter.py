"""The gradient of picked rows (an embedding's): each task owns some rows of the result. Loads no tvm."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgec.backends.base import Argument, Lowering
from edgec.backends.tvm.products import Request
from edgec.graph.ops.gather_nd_grad import GatherNdGrad
from edgec.graph.types import DType
from edgec.runtime.abi import Access

_TASK_ELEMENTS = 1 << 14
_MOST_TASKS = 32


@dataclass(frozen=True)
class GatherGradSpec:
    """dy[updates, columns], indices[updates] -> dx[rows, columns].

    Every task reads all indices and adds, in their order, the rows that fall among its own: sums have one order for any
    number of threads.
    """

    rows: int
    columns: int
    updates: int
    index_dtype: DType
    tasks: int

    @property
    def stem(self) -> str:
        return "f32_gather_grad"

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return (
            Argument(DType.F32, self.updates * self.columns, Access.READ),
            Argument(self.index_dtype, self.updates, Access.READ),
            Argument(DType.F32, self.rows * self.columns, Access.WRITE),
        )


def lower_gather_grad(request: Request) -> Lowering | None:
    """Slices of row-major f32 picked by one coordinate."""
    group, op = request.group, request.group.anchor.op
    if not isinstance(op, GatherNdGrad) or op.batch_dims or group.epilogue or request.alias:
        return None
    dy, indices = group.anchor.inputs
    dx = group.anchor.output
    if indices.type.shape[-1] != 1 or dx.type.dtype is not DType.F32 or not dy.type.size:
        return None
    if not all(request.storage[value].is_row_major for value in (dy, indices, dx)):
        return None
    rows, columns = op.shape[0], math.prod(op.shape[1:])
    tasks = max(1, min(_MOST_TASKS, rows * columns // _TASK_ELEMENTS, rows))
    spec = GatherGradSpec(rows, columns, indices.type.size, indices.type.dtype, tasks)
    request.call(spec, (dy, indices, dx), tasks)
    return request.lowering()
