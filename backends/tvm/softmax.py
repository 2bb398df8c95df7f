"""Softmax along a contiguous last axis, alone and with cross entropy: vectors along the classes. Loads no tvm."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgec.backends.base import Argument, Lowering
from edgec.backends.tvm.products import Request
from edgec.graph.ops.softmax import Softmax
from edgec.graph.ops.softmax_cross_entropy import SoftmaxCrossEntropy
from edgec.graph.types import DType
from edgec.runtime.abi import Access

_TASK_ELEMENTS = 1 << 12  # exp costs several times what a copy costs
_MOST_TASKS = 32


@dataclass(frozen=True)
class SoftmaxSpec:
    """x[rows, classes] -> y. Tasks share the rows. In place, x and y are one argument."""

    rows: int
    classes: int
    in_place: bool
    tasks: int

    @property
    def stem(self) -> str:
        return "f32_softmax"

    @property
    def arguments(self) -> tuple[Argument, ...]:
        size = self.rows * self.classes
        if self.in_place:
            return (Argument(DType.F32, size, Access.READ_WRITE),)
        return (Argument(DType.F32, size, Access.READ), Argument(DType.F32, size, Access.WRITE))


@dataclass(frozen=True)
class CrossEntropySpec:
    """logits, targets[rows, classes] -> losses[rows], and slopes[rows, classes] if wanted. Tasks share rows."""

    rows: int
    classes: int
    slopes: bool
    tasks: int

    @property
    def stem(self) -> str:
        return "f32_softmax_cross_entropy"

    @property
    def arguments(self) -> tuple[Argument, ...]:
        size = self.rows * self.classes
        wanted = (Argument(DType.F32, size, Access.WRITE),) if self.slopes else ()
        read = Argument(DType.F32, size, Access.READ)
        return (read, read, Argument(DType.F32, self.rows, Access.WRITE), *wanted)


def lower_softmax(request: Request) -> Lowering | None:
    """A softmax along the last axis, or a cross entropy, of row-major f32."""
    group, op = request.group, request.group.anchor.op
    if not isinstance(op, (Softmax, SoftmaxCrossEntropy)) or group.epilogue:
        return None
    values = [value for value in (*group.inputs, *group.outputs) if value.type.rank > 1]
    if any(value.type.dtype is not DType.F32 or value.type.size == 0 for value in values):
        return None
    if not all(request.storage[value].is_row_major for value in values):
        return None
    x = group.anchor.inputs[0]
    rows, classes = math.prod(x.type.shape[:-1]), x.type.shape[-1]
    tasks = max(1, min(_MOST_TASKS, x.type.size // _TASK_ELEMENTS, rows))
    if isinstance(op, SoftmaxCrossEntropy):
        losses, slopes = group.anchor.outputs
        if request.alias or not any(losses is value for value in group.outputs):
            return None
        wanted = tuple(value for value in group.outputs if value is slopes)
        spec = CrossEntropySpec(rows, classes, bool(wanted), tasks)
        request.call(spec, (*group.anchor.inputs, losses, *wanted), tasks)
        return request.lowering()
    if op.axis != x.type.rank - 1:
        return None
    y = group.anchor.output
    in_place = y in request.alias
    request.call(SoftmaxSpec(rows, classes, in_place, tasks), (y,) if in_place else (x, y), tasks)
    return request.lowering()
