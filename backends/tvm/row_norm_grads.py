"""Gradients of what layer and root mean square norms of contiguous rows read: vectors along the row. Loads no tvm."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgec.backends.base import Argument, Lowering
from edgec.backends.tvm.products import Request
from edgec.graph.ops.layer_norm_grad import LayerNormGrad
from edgec.graph.ops.rms_norm_grad import RmsNormGrad
from edgec.graph.types import DType
from edgec.runtime.abi import Access

_TASK_ELEMENTS = 1 << 13
_MOST_TASKS = 32


@dataclass(frozen=True)
class RowNormGradSpec:
    """dy, x, statistics of rows, and gamma of columns if `scaled` -> dx."""

    rows: int
    columns: int
    centred: bool
    scaled: bool
    tasks: int

    @property
    def stem(self) -> str:
        return "f32_layer_norm_grad" if self.centred else "f32_rms_norm_grad"

    @property
    def arguments(self) -> tuple[Argument, ...]:
        full = Argument(DType.F32, self.rows * self.columns, Access.READ)
        row = Argument(DType.F32, self.rows, Access.READ)
        gamma = (Argument(DType.F32, self.columns, Access.READ),) * self.scaled
        dx = Argument(DType.F32, full.elements, Access.WRITE)
        return full, full, *(row,) * (1 + self.centred), *gamma, dx


def lower_row_norm_grad(request: Request) -> Lowering | None:
    """The gradient of a norm over the trailing axes of row-major f32."""
    group, op = request.group, request.group.anchor.op
    if not isinstance(op, LayerNormGrad | RmsNormGrad) or group.epilogue or request.alias:
        return None
    inputs, dx = group.anchor.inputs, group.anchor.output
    values = (*inputs, dx)
    if any(v.type.dtype is not DType.F32 or not v.type.size or not request.storage[v].is_row_major for v in values):
        return None
    rows, columns = math.prod(dx.type.shape[: op.axis]), math.prod(dx.type.shape[op.axis :])
    tasks = max(1, min(_MOST_TASKS, dx.type.size // _TASK_ELEMENTS, rows))
    centred = isinstance(op, LayerNormGrad)
    spec = RowNormGradSpec(rows, columns, centred, len(inputs) > 3 + centred, tasks)
    request.call(spec, (*inputs, dx), tasks)
    return request.lowering()
