"""Kernels around others: one that first asks whether what is watched is finite, and one that does several side by side.

A launch costs a device some microseconds, which is more than most of a training step's kernels take. Nothing here loads
tvm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from edgec.backends.base import Argument, DeviceKernelSpec, Part
from edgec.backends.tvm.gpu.kernels import ItemSpec, TeamSpec
from edgec.backends.tvm.gpu.parts import PartsSpec
from edgec.backends.tvm.gpu.sums import SumSpec
from edgec.graph.ops.conv2d_weight_grad import Conv2dWeightGrad
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.reduction import Reduction
from edgec.graph.types import DType
from edgec.runtime.abi import MAX_DEVICE_ARGS, Access

MAX_PARTS = 16  # of a kernel
MAX_SHARED = 16384  # bytes, of all its parts: each has its own. OpenCL promises a group 32 KB, CUDA 48
MAX_TASKS = 4096  # of a part: a kernel that fills a device has nothing to gain
_ONE_SUM = (Conv2dWeightGrad, MatMul, Reduction)
_SMALL = (ItemSpec, TeamSpec, PartsSpec, SumSpec)


@dataclass(frozen=True)
class GuardedSpec:
    """A kernel that does nothing unless `words` more arguments, an f32 each, are finite."""

    spec: DeviceKernelSpec
    words: int

    @property
    def stem(self) -> str:
        return self.spec.stem

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return (*self.spec.arguments, *[Argument(DType.F32, 1, Access.READ)] * self.words)

    @property
    def threads(self) -> int:
        return self.spec.threads

    def narrowed(self, most: int) -> Self:
        return replace(self, spec=self.spec.narrowed(most))


@dataclass(frozen=True)
class MergedSpec:
    """Several kernels with groups of one size: each group does one task of one part. Narrowed, parts whose items do not
    wait for one another have larger groups than it.
    """

    parts: tuple[Part, ...]
    arguments: tuple[Argument, ...]

    @property
    def stem(self) -> str:
        return f"{self.parts[0].spec.stem}_and_{len(self.parts) - 1}_more"

    @property
    def threads(self) -> int:
        return min(part.spec.threads for part in self.parts)

    @property
    def groups(self) -> int:
        return sum(part.tasks for part in self.parts)

    def narrowed(self, most: int) -> Self:
        return replace(self, parts=tuple(replace(part, spec=part.spec.narrowed(most)) for part in self.parts))


def guarded_spec(spec: DeviceKernelSpec, words: int) -> GuardedSpec | None:
    made = GuardedSpec(spec, words)
    return made if len(made.arguments) <= MAX_DEVICE_ARGS else None


def merge_key(spec: DeviceKernelSpec, tasks: int) -> int | None:
    """The size of its groups, of a small kernel."""
    return spec.threads if isinstance(_unguarded(spec), _SMALL) and 0 < tasks <= MAX_TASKS else None


def items_wait(spec: DeviceKernelSpec) -> bool:
    """Whether the items of a group wait for one another: such groups can be made smaller."""
    return spec.narrowed(1) != spec


def merged_spec(parts: Sequence[Part], arguments: Sequence[Argument]) -> MergedSpec | None:
    if len(parts) > MAX_PARTS or len(arguments) > MAX_DEVICE_ARGS:
        return None
    if sum(_shared_bytes(part.spec) for part in parts) > MAX_SHARED:
        return None
    return MergedSpec(tuple(parts), tuple(arguments))


def _unguarded(spec: DeviceKernelSpec) -> DeviceKernelSpec:
    return spec.spec if isinstance(spec, GuardedSpec) else spec


def _shared_bytes(spec: DeviceKernelSpec) -> int:
    """At most: a sum over a team takes an f32 from each item, and no op has more than four."""
    plain = _unguarded(spec)
    if isinstance(plain, ItemSpec):
        return 0
    one = not isinstance(plain, TeamSpec) or isinstance(plain.computation.anchor.op, _ONE_SUM)
    return 4 * spec.threads * (1 if one else 4)
