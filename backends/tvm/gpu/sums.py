"""Sums of few results and many terms on devices: parts of the terms, which a second kernel adds in order.

A work group for each result (`TeamSpec`) would leave a device idle where results are few, as sums over all images and
positions of each channel are. Nothing here loads tvm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from edgec.backends.base import Argument, Group, Lowering
from edgec.backends.tvm.computation import Computation, bind_computation
from edgec.backends.tvm.gpu.kernels import MAX_TEAM
from edgec.backends.tvm.gpu.parts import lower_in_parts
from edgec.graph.ir import Value
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.types import DType
from edgec.runtime.abi import MAX_KERNEL_ARGS, Storage

MIN_GROUPS = 512  # below, terms are cut into parts
MIN_TERMS = 4096  # of a part


@dataclass(frozen=True)
class SumSpec:
    """One of `parts` of the terms of one result for each group; sums go to the last argument."""

    computation: Computation
    parts: int
    threads: int = MAX_TEAM

    @property
    def stem(self) -> str:
        return f"f32_{self.computation.anchor.op.name}_part_team"

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return self.computation.arguments

    @property
    def groups(self) -> int:
        return math.prod(self.computation.shape)

    def narrowed(self, most: int) -> Self:
        return replace(self, threads=min(self.threads, most))


def lower_device_sum(group: Group, storage: Mapping[Value, Storage], alias: Mapping[Value, Value]) -> Lowering | None:
    """For a sum in f32 of few results and many terms; None for others."""
    op, anchor = group.anchor.op, group.anchor
    if not isinstance(op, ReduceSum) or anchor.inputs[0].type.dtype is not DType.F32:
        return None
    results = anchor.output.type.size
    terms = anchor.inputs[0].type.size // max(results, 1)
    parts = min(-(-MIN_GROUPS // max(results, 1)), terms // MIN_TERMS)
    bound = bind_computation(group, storage, alias)
    if parts < 2 or len(bound.operands) == MAX_KERNEL_ARGS:
        return None
    return lower_in_parts(SumSpec(bound.computation, parts), bound, anchor)
