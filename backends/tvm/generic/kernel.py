"""The spec of a generic kernel: plain scalar loops for any group, with any storage of its operands, on any target.

It is the oracle for every other kernel, what runs where no strategy fits, and the base on micro-controllers. Reductions
add in one fixed order; nothing comes from libm. Nothing here loads tvm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from edgec.backends.base import Argument, Group, KernelCall, Lowering
from edgec.backends.tvm.computation import Computation, bind_computation
from edgec.graph.ir import Value
from edgec.graph.ops.max_pool2d_grad import MaxPool2dGrad
from edgec.graph.ops.softmax import Softmax
from edgec.graph.ops.softmax_cross_entropy import SoftmaxCrossEntropy
from edgec.runtime.abi import Storage

MIN_TASK_WORK = 20_000  # elements or products: less is not worth handing to another thread
MAX_TASKS = 32


@dataclass(frozen=True)
class GenericSpec:
    """`rows` pieces of work that do not depend on one another, cut into `tasks` runs of equal length.

    A row is what `row_count` says for the anchor.
    """

    computation: Computation
    rows: int
    tasks: int

    @property
    def stem(self) -> str:
        return f"{self.computation.stem}_generic"

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return self.computation.arguments


def row_count(computation: Computation) -> int:
    """Runs along the axis for softmax, planes for a max pool's gradient, one for the loss; else leading output axes."""
    op, shape = computation.anchor.op, computation.shape
    match op:
        case SoftmaxCrossEntropy():
            return 1
        case Softmax():
            return math.prod(shape[: op.axis] + shape[op.axis + 1 :])
        case MaxPool2dGrad():
            return math.prod(shape[:2])
    return math.prod(shape[: row_axes(shape)])


def row_axes(shape: tuple[int, ...]) -> int:
    """How many leading axes of an output make its rows: the fewest that give every task one."""
    axes = 0
    while axes < len(shape) and math.prod(shape[:axes]) < MAX_TASKS:
        axes += 1
    return axes


def lower_generic(group: Group, storage: Mapping[Value, Storage], alias: Mapping[Value, Value]) -> Lowering:
    """One generic kernel for a group of any anchor."""
    bound = bind_computation(group, storage, alias)
    rows = row_count(bound.computation)
    inputs, outputs = (tuple(v.type for v in vs) for vs in (group.anchor.inputs, group.anchor.outputs))
    macs = group.anchor.op.cost(inputs, outputs).macs
    tasks = min(rows, MAX_TASKS, max(1, max(macs, bound.computation.elements) // MIN_TASK_WORK))
    spec = GenericSpec(bound.computation, rows, tasks)
    return Lowering((KernelCall(spec, bound.operands, tasks, macs, bound.label),))
