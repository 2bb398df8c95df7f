"""Dropout of row-major f32: one block of random bits for four elements, which lie a quarter apart. Loads no tvm."""

from __future__ import annotations

from dataclasses import dataclass

from edgec.backends.base import Argument, Lowering
from edgec.backends.tvm.products import Request
from edgec.graph.ops.dropout import DECISIONS, Dropout
from edgec.graph.types import DType
from edgec.runtime.abi import Access

_FEWEST = 4 * DECISIONS  # from here on only the last quarter may be short
_TASK_ELEMENTS = 1 << 13
_MOST_TASKS = 32


@dataclass(frozen=True)
class DropoutSpec:
    """x[elements], seed i32[], step i32[] -> y. Tasks share the blocks."""

    elements: int
    op: Dropout
    tasks: int

    @property
    def stem(self) -> str:
        return "f32_dropout"

    @property
    def arguments(self) -> tuple[Argument, ...]:
        state = Argument(DType.I32, 1, Access.READ)
        x, y = (Argument(DType.F32, self.elements, access) for access in (Access.READ, Access.WRITE))
        return x, state, state, y


def lower_dropout(request: Request) -> Lowering | None:
    """A decision for each element; what is shared by several is left to the generic kernel."""
    group, op = request.group, request.group.anchor.op
    if not isinstance(op, Dropout) or op.shared or group.epilogue or request.alias:
        return None
    x, *state = group.anchor.inputs
    y = group.anchor.output
    if x.type.dtype is not DType.F32 or x.type.size < _FEWEST or not state:
        return None
    if not all(request.storage[value].is_row_major for value in (x, y)):
        return None
    tasks = max(1, min(_MOST_TASKS, x.type.size // _TASK_ELEMENTS))
    request.call(DropoutSpec(x.type.size, op, tasks), (x, *state, y), tasks)
    return request.lowering()
