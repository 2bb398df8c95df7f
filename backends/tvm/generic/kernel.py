"""The spec of a generic kernel: plain scalar loops for any group, with any storage of its operands, on any target.

It is the oracle for every other kernel, what runs where no strategy fits, and the base on micro-controllers. Reductions
add in one fixed order; nothing comes from libm. Nothing here loads tvm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from edgec.backends.base import Argument, Group, KernelCall, Lowering, Target
from edgec.backends.tvm.computation import Computation, bind_computation
from edgec.graph.ir import Value
from edgec.graph.ops.base import Op
from edgec.graph.ops.batch_norm_train import BatchNormTrain
from edgec.graph.ops.cum_prod import CumProd
from edgec.graph.ops.cum_prod_grad import CumProdGrad
from edgec.graph.ops.cum_sum import CumSum
from edgec.graph.ops.cumulative import Cumulative
from edgec.graph.ops.gather_nd_grad import GatherNdGrad
from edgec.graph.ops.layer_norm import LayerNorm
from edgec.graph.ops.layer_norm_grad import LayerNormGrad
from edgec.graph.ops.moments import Moments
from edgec.graph.ops.non_max_suppression import NonMaxSuppression
from edgec.graph.ops.norm_param_grad import NormParamGrad
from edgec.graph.ops.rms_norm import RmsNorm
from edgec.graph.ops.rms_norm_grad import RmsNormGrad
from edgec.graph.ops.scatter_elements import ScatterElements
from edgec.graph.ops.scatter_nd import ScatterNd
from edgec.graph.ops.softmax import Softmax
from edgec.graph.ops.softmax_cross_entropy import SoftmaxCrossEntropy
from edgec.graph.ops.top_k import TopK
from edgec.runtime.abi import Storage

MIN_TASK_WORK = 20_000  # elements or products: less is not worth handing to another thread
MAX_TASKS = 32

# Anchors whose kernel writes whole rows at once: no epilogue can follow element by element.
ROW_OPS = (
    Softmax,
    SoftmaxCrossEntropy,
    CumSum,
    CumProd,
    CumProdGrad,
    GatherNdGrad,
    TopK,
    NonMaxSuppression,
    LayerNorm,
    RmsNorm,
    LayerNormGrad,
    RmsNormGrad,
    BatchNormTrain,
    Moments,
    NormParamGrad,
    ScatterElements,
    ScatterNd,
)


@dataclass(frozen=True)
class GenericSpec:
    """`rows` pieces of work that do not depend on one another, cut into `tasks` runs of equal length.

    For an anchor with a row of its own (softmax: a run along the axis) a row is that; else `row_axes` leading axes of
    the output make the rows.
    """

    computation: Computation
    rows: int
    tasks: int
    row_axes: int = 0

    @property
    def stem(self) -> str:
        return f"{self.computation.stem}_generic"

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return self.computation.arguments


def lower_generic(
    group: Group, storage: Mapping[Value, Storage], alias: Mapping[Value, Value], target: Target
) -> Lowering:
    """One generic kernel for a group of any anchor."""
    bound = bind_computation(group, storage, alias)
    macs = group.anchor.cost.macs
    # Micro-controllers have one core.
    wanted = 1 if target.c_source else max(macs, bound.computation.elements) // MIN_TASK_WORK
    spec = _cut(bound.computation, max(1, min(wanted, MAX_TASKS)))
    return Lowering((KernelCall(spec, bound.operands, spec.tasks, macs, bound.label),))


def _cut(computation: Computation, tasks: int) -> GenericSpec:
    op, shape = computation.anchor.op, computation.shape
    if isinstance(op, ROW_OPS):
        rows = own_rows(op, computation.anchor.operands[0].type.shape, shape)
        return GenericSpec(computation, rows, min(tasks, rows))
    # The fewest leading axes that give every task a row; rows cost divisions.
    axes = 0
    while axes < len(shape) and math.prod(shape[:axes]) < tasks:
        axes += 1
    rows = math.prod(shape[:axes])
    return GenericSpec(computation, rows, min(tasks, rows), axes)


def own_rows(op: Op, x: tuple[int, ...], y: tuple[int, ...]) -> int:
    """The rows of an op with rows of its own, whose first operand has the shape `x`, its first result `y`."""
    match op:
        case Softmax() | Cumulative() | TopK():
            return math.prod(x[: op.axis] + x[op.axis + 1 :])
        case GatherNdGrad():
            return math.prod(op.shape[: op.batch_dims])
        case NonMaxSuppression():
            return math.prod(y[:2])
        case SoftmaxCrossEntropy():
            return x[0]
        case LayerNorm() | RmsNorm() | LayerNormGrad() | RmsNormGrad():
            return math.prod(x[: op.axis])
        case Moments() | NormParamGrad():
            return math.prod(n for axis, n in enumerate(x) if axis not in op.axes)
        case BatchNormTrain():
            return x[1]
        case _:  # all of it: updates that come in order
            return 1
