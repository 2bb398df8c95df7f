"""Gathers of contiguous slices: rows of an embedding, lines and pixels of a map that is enlarged. Loads no tvm."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgec.backends.base import Argument, Lowering
from edgec.backends.tvm.epilogue import same_order
from edgec.backends.tvm.products import Request
from edgec.graph.ops.gather import Gather
from edgec.graph.types import DType
from edgec.runtime.abi import Access, Storage

_TASK_ELEMENTS = 1 << 14
_MOST_TASKS = 32


@dataclass(frozen=True)
class GatherSpec:
    """x[outer, extent, inner], indices[count] -> y[outer, count, inner], in memory order. Tasks share outer * count."""

    dtype: DType
    index: DType
    outer: int
    extent: int
    inner: int
    count: int
    tasks: int

    @property
    def stem(self) -> str:
        return f"{self.dtype.value}_gather"

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return (
            Argument(self.dtype, self.outer * self.extent * self.inner, Access.READ),
            Argument(self.index, self.count, Access.READ),
            Argument(self.dtype, self.outer * self.count * self.inner, Access.WRITE),
        )


def lower_gather(request: Request) -> Lowering | None:
    group, op = request.group, request.group.anchor.op
    if not isinstance(op, Gather) or group.epilogue or request.alias:
        return None
    (x, indices), y = group.anchor.inputs, group.anchor.output
    if y.type.size == 0 or not request.storage[indices].is_row_major:
        return None
    storage = request.storage[x]
    if storage.is_row_major and request.storage[y].is_row_major:
        storage = Storage.row_major(x.type.shape)
    elif (
        indices.type.rank != 1
        or storage.block
        or not same_order(request.storage[y], Storage(y.type.shape, storage.perm))
    ):
        return None
    place = storage.perm.index(op.axis)
    before, behind = storage.perm[:place], storage.perm[place + 1 :]
    outer, inner = (math.prod(x.type.shape[axis] for axis in axes) for axes in (before, behind))
    count = indices.type.size
    tasks = max(1, min(_MOST_TASKS, y.type.size // _TASK_ELEMENTS, outer * count))
    spec = GatherSpec(x.type.dtype, indices.type.dtype, outer, x.type.shape[op.axis], inner, count, tasks)
    request.call(spec, (x, indices, y), tasks)
    return request.lowering()
