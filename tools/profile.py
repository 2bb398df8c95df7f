"""Where the time of a program goes: kernel calls timed over several runs, here or on a device; the peak beside them."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from edgec.runtime import CallProfile, Model, TensorInfo
from edgec.tools.verify import draw_feeds

# Least seconds of an n x n x n product in f32, in a process of its own: BLAS reads the number of its threads once.
# Each is shorter than a time slice, so that neighbours on the machine leave most of them alone.
_GEMM = """
import sys, time
import numpy as np
n, repeats = int(sys.argv[1]), int(sys.argv[2])
a, b = np.random.default_rng(0).standard_normal((2, n, n), np.float32)
out = a @ b
def once():
    start = time.perf_counter()
    np.matmul(a, b, out=out)
    return time.perf_counter() - start
print(min(once() for _ in range(repeats)))
"""
_GEMM_SIZE, _GEMM_REPEATS = 384, 100
_BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "OMP_NUM_THREADS")


@dataclass(frozen=True)
class CallTime:
    """One call of the plan over several runs: the median of its durations. `label` names the nodes it computes."""

    kernel: str
    label: str
    macs: int
    nanoseconds: int


@dataclass(frozen=True)
class KernelTime:
    """All calls of one kernel in a run."""

    kernel: str
    labels: tuple[str, ...]
    calls: int
    macs: int
    nanoseconds: int

    @property
    def gflops(self) -> float:
        """10^9 operations a second; a multiply-accumulate is two."""
        return 2 * self.macs / self.nanoseconds if self.nanoseconds else 0.0


def random_feeds(inputs: tuple[TensorInfo, ...], scalars: tuple[TensorInfo, ...]) -> dict[str, np.ndarray]:
    """Inputs drawn with one seed; scalars 0, so that a training step at rate 0 changes no parameter, or the most."""
    most = {info.name: np.array(info.bounds[1] if info.bounds else 0, info.dtype) for info in scalars}
    return draw_feeds(inputs, seed=0) | most


def profile_here(model: Model, program: str, runs: int) -> list[list[CallProfile]]:
    """The calls of every run, after one unmeasured."""
    signature = model.signature(program)
    feeds = random_feeds(signature.inputs, signature.scalars)
    model.run(feeds, program=program)
    measured = []
    for _ in range(runs):
        with model.profile() as calls:
            model.run(feeds, program=program)
        measured.append(calls)
    return measured


def summarise(runs: list[list[CallProfile]]) -> list[CallTime]:
    """Call by call, in the order of the plan: every run makes the same calls."""
    return [
        CallTime(same[0].kernel, same[0].label, same[0].macs, int(statistics.median(call.ns for call in same)))
        for same in zip(*runs, strict=True)
    ]


def from_device(profile: Mapping) -> list[CallTime]:
    """The profile that `edgec-run` writes, whose `nanoseconds` are the least and the median of its steps."""
    return [CallTime(c["kernel"], c["label"], c["macs"], c["nanoseconds"][1]) for c in profile["calls"]]


def by_kernel(calls: Iterable[CallTime]) -> list[KernelTime]:
    """Kernels, the one that takes most time first."""
    of: dict[str, list[CallTime]] = {}
    for call in calls:
        of.setdefault(call.kernel, []).append(call)
    rows = [
        KernelTime(
            kernel,
            tuple(call.label for call in same),
            len(same),
            sum(call.macs for call in same),
            sum(call.nanoseconds for call in same),
        )
        for kernel, same in of.items()
    ]
    return sorted(rows, key=lambda row: -row.nanoseconds)


def default_threads() -> int:
    """What `load` takes where nobody says: one for each CPU of this process."""
    return len(os.sched_getaffinity(0))


def measure_peak(threads: int) -> float:
    """GFLOP/s of numpy's f32 matrix product on this machine, now: the practical peak beside which kernels stand."""
    words = [sys.executable, "-c", _GEMM, str(_GEMM_SIZE), str(_GEMM_REPEATS)]
    environment = os.environ | dict.fromkeys(_BLAS_THREADS, str(threads))
    seconds = float(subprocess.run(words, env=environment, capture_output=True, check=True).stdout)
    return 2 * _GEMM_SIZE**3 / seconds / 1e9
