"""What the cost model knows of the cores that share an instruction set: figures of typical ones, not of one.

From the vendors' optimisation guides (AMD family 1Ah, Intel Skylake-SP and Golden Cove, Arm Cortex-A72 and A76). What
a choice depends on are their ratios, which are alike for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgec.backends.base import Target
from edgec.runtime.abi import Arch


@dataclass(frozen=True)
class Machine:
    """`multiply_adds` and `loads` of a vector begin in every cycle, a multiply-add is done after `latency`; a core has
    `near` and `far` bytes of cache, and has `far_bytes` of the latter in a cycle, `memory_bytes` of what lies beyond.
    """

    isa: str
    multiply_adds: int
    loads: int
    latency: int
    near: int
    far: int
    far_bytes: int
    memory_bytes: int


_AVX512 = Machine("avx512", 2, 2, 4, 32 << 10, 1 << 20, 48, 20)
_AVX2 = Machine("avx2", 2, 2, 4, 32 << 10, 256 << 10, 32, 16)
_NEON = Machine("neon", 2, 2, 4, 32 << 10, 512 << 10, 16, 6)


def machine_of(target: Target) -> Machine:
    """For targets with vectors."""
    if target.arch is Arch.AARCH64:
        return _NEON
    return _AVX512 if target.lanes == 16 else _AVX2
