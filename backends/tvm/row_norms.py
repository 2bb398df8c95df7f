"""Layer and root mean square normalisation of contiguous rows: vectors along the row. Loads no tvm."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgec.backends.base import Argument, Lowering
from edgec.backends.tvm.products import Request
from edgec.graph.ops.layer_norm import LayerNorm
from edgec.graph.ops.rms_norm import RmsNorm
from edgec.graph.types import DType
from edgec.runtime.abi import Access

_TASK_ELEMENTS = 1 << 13
_MOST_TASKS = 32


@dataclass(frozen=True)
class RowNormSpec:
    """x[rows, width], `factors` vectors [width] (scale, shift) -> those results of `op` whose numbers `wanted` names.

    Tasks share the rows. In place, x and y are one argument, the first.
    """

    op: LayerNorm | RmsNorm
    rows: int
    width: int
    factors: int
    wanted: tuple[int, ...]
    in_place: bool
    tasks: int

    @property
    def stem(self) -> str:
        return f"f32_{self.op.name}"

    @property
    def arguments(self) -> tuple[Argument, ...]:
        size = self.rows * self.width
        x = Argument(DType.F32, size, Access.READ_WRITE if self.in_place else Access.READ)
        written = [i for i in self.wanted if i or not self.in_place]
        return (
            x,
            *(Argument(DType.F32, self.width, Access.READ) for _ in range(self.factors)),
            *(Argument(DType.F32, self.rows if i else size, Access.WRITE) for i in written),
        )


def lower_row_norm(request: Request) -> Lowering | None:
    """A norm over the trailing axes of row-major f32."""
    group, op = request.group, request.group.anchor.op
    if not isinstance(op, (LayerNorm, RmsNorm)) or group.epilogue:
        return None
    values = (*group.anchor.inputs, *group.outputs)
    if any(value.type.dtype is not DType.F32 or value.type.size == 0 for value in values):
        return None
    if not all(request.storage[value].is_row_major for value in values):
        return None
    x, *factors = group.anchor.inputs
    if any(shared is not x for shared in request.alias.values()):
        return None
    rows, width = math.prod(x.type.shape[: op.axis]), math.prod(x.type.shape[op.axis :])
    outputs = group.anchor.outputs
    wanted = tuple(i for i, value in enumerate(outputs) if any(value is v for v in group.outputs))
    in_place = outputs[0] in request.alias
    if in_place != bool(request.alias):
        return None
    tasks = max(1, min(_MOST_TASKS, x.type.size // _TASK_ELEMENTS, rows))
    spec = RowNormSpec(op, rows, width, len(factors), wanted, in_place, tasks)
    written = [outputs[i] for i in wanted if i or not in_place]
    request.call(spec, (outputs[0] if in_place else x, *factors, *written), tasks)
    return request.lowering()
