"""Sums whose terms are cut into parts, and their last kernel: the sum over the parts, in order, and what follows it.

A group has `results` neighbouring results, which are read as lines of memory, and `slices` of the parts for each: a
slice is added by one item, and slices are added in order. Nothing here loads tvm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol, Self

from edgec.backends.base import Argument, KernelCall, KernelSpec, Lowering, Workspace
from edgec.backends.tvm.computation import BoundComputation, Computation, Computed, Memory, Step, Store
from edgec.graph.ir import Node
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.types import DType, TensorType
from edgec.runtime.abi import Access, Storage

THREADS = 128
MAX_SLICES = 8


@dataclass(frozen=True)
class PartsSpec:
    """`computation` begins with a sum over the first axis of its anchor's operand."""

    computation: Computation
    parts: int
    threads: int = THREADS

    @property
    def stem(self) -> str:
        return f"{self.computation.stem}_parts"

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return self.computation.arguments

    @property
    def results(self) -> int:
        """Of a group of THREADS, so that every slice has two parts and more: a power of two."""
        return THREADS // min(MAX_SLICES, 1 << max(self.parts // 2, 1).bit_length() - 1)

    @property
    def slices(self) -> int:
        return self.threads // self.results

    @property
    def groups(self) -> int:
        return -(-math.prod(self.computation.shape) // self.results)

    def narrowed(self, most: int) -> Self:
        return replace(self, threads=max(self.results, min(self.threads, most)))


class PartedSpec(KernelSpec, Protocol):
    """A frozen dataclass: a kernel that leaves `parts` sums for each result in its last argument."""

    computation: Computation
    parts: int

    @property
    def groups(self) -> int: ...


def lower_in_parts(spec: PartedSpec, bound: BoundComputation, anchor: Node) -> Lowering:
    """One kernel; or, of several parts, one that leaves them in a workspace and a second one that adds them. `spec` has
    the whole computation of a group with this anchor.
    """
    macs, result = anchor.cost.macs, anchor.outputs[0].type
    if spec.parts == 1:
        return Lowering((KernelCall(spec, bound.operands, spec.groups, macs, bound.label),))
    sums = result.with_shape((spec.parts, *result.shape))
    scratch = Workspace(0, sums.bytes)
    first = replace(spec, computation=_anchor_alone(bound.computation, sums))
    own = [bound.operands[operand.argument] for operand in bound.computation.anchor.operands]
    last, kept = _adding(bound.computation, sums)
    return Lowering(
        (
            KernelCall(first, (*own, scratch), first.groups, macs, bound.label),
            KernelCall(last, (*(bound.operands[i] for i in kept), scratch), last.groups, 0, bound.label),
        ),
        (scratch,),
    )


def _anchor_alone(computation: Computation, sums: TensorType) -> Computation:
    """The anchor, into the workspace for its parts."""
    anchor = computation.anchor
    operands = tuple(replace(operand, argument=i) for i, operand in enumerate(anchor.operands))
    arguments = tuple(replace(computation.arguments[o.argument], access=Access.READ) for o in anchor.operands)
    home = Memory(sums, Storage.row_major(sums.shape), len(operands))
    result = Argument(DType.F32, sums.size, Access.WRITE)
    return Computation((*arguments, result), (Step(anchor.op, operands),), (Store(Computed(0), home),))


def _adding(computation: Computation, sums: TensorType) -> tuple[PartsSpec, tuple[int, ...]]:
    """The same computation with the sum over the parts as its anchor, and which of its arguments it still reads or
    writes: the workspace comes behind them.
    """
    operands = [operand for step in computation.steps[1:] for operand in step.operands if isinstance(operand, Memory)]
    used = sorted({memory.argument for memory in (*operands, *(store.memory for store in computation.stores))})
    place = {argument: i for i, argument in enumerate(used)}

    def moved(operand: Memory | Computed) -> Memory | Computed:
        return replace(operand, argument=place[operand.argument]) if isinstance(operand, Memory) else operand

    home = Memory(sums, Storage.row_major(sums.shape), len(used))
    first = Step(ReduceSum((0,)), (home,))
    rest = tuple(replace(step, operands=tuple(map(moved, step.operands))) for step in computation.steps[1:])
    stores = tuple(replace(store, memory=moved(store.memory)) for store in computation.stores)
    arguments = (*(computation.arguments[i] for i in used), Argument(DType.F32, sums.size, Access.READ))
    return PartsSpec(Computation(arguments, (first, *rest), stores), sums.shape[0]), tuple(used)
