"""Contenders side by side: each in its own process, taking turns, so that a slow minute of the machine hits all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# A round is about this long for each contender, and has at most so many repetitions.
_ROUND_SECONDS, _ROUND_STEPS = 0.3, 200
_BLAS_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Timing:
    """Milliseconds: the median, the distance of the quartiles as `spread`, the least, the median of the processor's
    time (of one thread: what a step takes while nobody interrupts it); or why nothing was measured.
    """

    median_ms: float = float("nan")
    spread_ms: float = float("nan")
    steps: int = 0
    error: str = ""
    least_ms: float = float("nan")
    cpu_ms: float = float("nan")


class _Worker:
    def __init__(self, spec: Mapping, cpus: Sequence[int]):
        threads = str(spec["threads"])
        environment = os.environ | dict.fromkeys(_BLAS_THREADS, threads)
        command = [sys.executable, "-m", "edgec.tools.bench.worker", json.dumps(spec)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            preexec_fn=lambda: os.sched_setaffinity(0, cpus),
        )
        self.seconds: list[tuple[float, float]] = []  # of the clock, of the processor
        self.error = self._answer().get("error", "")
        self.repetitions = 3

    def _answer(self) -> Mapping:
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": f"ended with status {self.process.wait()}"}

    def turn(self, *, count: bool) -> None:
        self.process.stdin.write(f"{self.repetitions}\n")
        self.process.stdin.flush()
        answer = self._answer()
        if isinstance(answer, Mapping):
            self.error = answer["error"]
            return
        best = min(answer)[0]
        self.repetitions = max(3, min(_ROUND_STEPS, int(_ROUND_SECONDS / max(best, 1e-6))))
        if count:
            self.seconds += answer

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def timing(self) -> Timing:
        if self.error or len(self.seconds) < 2:
            return Timing(error=self.error or "no measurement")
        wall, cpu = (np.array(self.seconds) * 1e3).T
        low, median, high = np.quantile(wall, (0.25, 0.5, 0.75)).tolist()
        return Timing(median, high - low, len(wall), "", float(wall.min()), float(np.median(cpu)))


def compare(contenders: Mapping[str, Mapping], *, rounds: int = 10) -> dict[str, Timing]:
    """Timings by name. Each contender's description is as in `contenders.py`; threads are pinned to as many CPUs."""
    workers: dict[str, _Worker] = {}
    available = sorted(os.sched_getaffinity(0))
    try:
        for name, spec in contenders.items():
            workers[name] = _Worker(spec, available[: spec["threads"]])
        for round_number in range(rounds + 2):
            for worker in workers.values():
                if not worker.error:
                    worker.turn(count=round_number >= 2)  # two rounds warm up
        return {name: worker.timing() for name, worker in workers.items()}
    finally:
        for worker in workers.values():
            worker.close()
