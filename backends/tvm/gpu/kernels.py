"""Kernels for devices (CUDA, OpenCL): any group, one work item or one team of them for each result.

The arithmetic is that of the generic kernels (`generic/`), whatever the op: what differs is who does which part of it.
Neighbouring items do neighbouring elements, so that a wave reads lines of memory; long sums are shared by a work group.
Nothing here loads tvm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from edgec.backends.base import Argument, Group, KernelCall, Lowering
from edgec.backends.tvm.computation import Computation, bind_computation
from edgec.backends.tvm.generic.kernel import ROW_OPS, own_rows
from edgec.graph.ir import Value
from edgec.graph.ops.batch_norm_train import BatchNormTrain
from edgec.graph.ops.conv2d_weight_grad import Conv2dWeightGrad
from edgec.graph.ops.layer_norm import LayerNorm
from edgec.graph.ops.layer_norm_grad import LayerNormGrad
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.moments import Moments
from edgec.graph.ops.norm_param_grad import NormParamGrad
from edgec.graph.ops.reduction import Reduction
from edgec.graph.ops.rms_norm import RmsNorm
from edgec.graph.ops.rms_norm_grad import RmsNormGrad
from edgec.graph.ops.softmax import Softmax
from edgec.graph.ops.softmax_cross_entropy import SoftmaxCrossEntropy
from edgec.runtime.abi import Storage

ITEMS = 128  # of a group that works on separate results
MAX_TEAM = 256
MIN_TEAM = 32  # below, a sum is done by one item sooner


@dataclass(frozen=True)
class _ResultsSpec:
    """`rows` results, by groups of `threads` items. `row_axes` as in `GenericSpec`: all, or an anchor's own rows."""

    computation: Computation
    rows: int
    row_axes: int
    threads: int

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return self.computation.arguments


@dataclass(frozen=True)
class ItemSpec(_ResultsSpec):
    """One result for each work item."""

    @property
    def stem(self) -> str:
        return f"{self.computation.stem}_item"

    @property
    def groups(self) -> int:
        return -(-self.rows // self.threads)

    def narrowed(self, most: int) -> Self:
        return self


@dataclass(frozen=True)
class TeamSpec(_ResultsSpec):
    """Each result is a sum (or a row) that the items of one work group share out."""

    @property
    def stem(self) -> str:
        return f"{self.computation.stem}_team"

    @property
    def groups(self) -> int:
        return self.rows

    def narrowed(self, most: int) -> Self:
        return replace(self, threads=min(self.threads, most))


def lower_device(group: Group, storage: Mapping[Value, Storage], alias: Mapping[Value, Value]) -> Lowering:
    """One kernel for a group of any anchor."""
    bound = bind_computation(group, storage, alias)
    computation, anchor = bound.computation, group.anchor
    if isinstance(anchor.op, ROW_OPS):
        rows, axes = own_rows(anchor.op, computation.anchor.operands[0].type.shape, computation.shape), 0
    else:
        rows, axes = math.prod(computation.shape), len(computation.shape)
    team = _team(group)
    spec = TeamSpec(computation, rows, axes, team) if team else ItemSpec(computation, rows, axes, ITEMS)
    return Lowering((KernelCall(spec, bound.operands, spec.groups, anchor.cost.macs, bound.label),))


def _team(group: Group) -> int:
    """How many items share one result of the anchor: a power of two; 0 where each item had better do its own."""
    terms = _terms(group)
    if terms < MIN_TEAM:
        return 0
    return min(MAX_TEAM, 1 << (terms - 1).bit_length() - 1)


def _terms(group: Group) -> int:
    """What a team can share out of one result: the ops whose code says `divided`. 0 for the others."""
    op, x = group.anchor.op, group.anchor.inputs[0].type.shape
    match op:
        case Reduction():
            return math.prod(x[axis] for axis in op.axes)
        case Conv2dWeightGrad():
            dy = group.anchor.inputs[1].type.shape
            return dy[0] * math.prod(dy[2:])
        case MatMul():  # of few rows or columns: the others are tiles
            return x[-2] if op.transpose_a else x[-1]
        case Softmax():
            return x[op.axis]
        case SoftmaxCrossEntropy():
            return x[1]
        case LayerNorm() | RmsNorm() | LayerNormGrad() | RmsNormGrad():
            return math.prod(x[op.axis :])
        case Moments() | NormParamGrad():
            return math.prod(x[axis] for axis in op.axes)
        case BatchNormTrain():
            return math.prod(x) // max(x[1], 1)
        case _:
            return 0
