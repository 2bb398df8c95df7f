"""One row of the table: compiles its artifacts, describes the contenders and lets them take turns."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edgec.compiler.train import Train
from edgec.tools import api
from edgec.tools.bench.compare import Timing, compare
from edgec.tools.bench.contenders import TORCH_MODES
from edgec.tools.bench.kernels import PEAK_FLOPS
from edgec.tools.bench.onnx_models import EXPORTED, IMAGES, onnx_model
from edgec.tools.bench.rows import Row
from edgec.tools.bench.subjects import SUBJECTS

_LR = 1e-6  # small enough that thousands of steps on one batch stay finite, on all sides


@dataclass(frozen=True)
class Result:
    """A row's timings by contender, `ours` among them as edgec; the multiply-accumulates of our program, and GFLOP/s of
    a product in cache in the same run, times the threads.
    """

    row: Row
    timings: Mapping[str, Timing]
    macs: int
    peak: float

    @property
    def ours(self) -> Timing:
        return self.timings["edgec"]

    def fastest(self) -> str | None:
        """The peer with the least median, if any ran."""
        ran = {name: t.median_ms for name, t in self.timings.items() if name != "edgec" and not t.error}
        return min(ran, key=ran.__getitem__, default=None)

    def ratio(self) -> float | None:
        """Our median by that of the fastest peer."""
        name = self.fastest()
        return self.ours.median_ms / self.timings[name].median_ms if name and not self.ours.error else None

    def undisturbed_ratio(self, name: str) -> float:
        """The same by contender `name`'s, of what neighbours on the machine disturb less: the processor's time of one
        thread, the least times of several.
        """
        ours, theirs = self.ours, self.timings[name]
        return ours.cpu_ms / theirs.cpu_ms if self.row.threads == 1 else ours.least_ms / theirs.least_ms

    def share(self) -> float | None:
        """Our operations a second by those of the large product, at the best of both."""
        return None if self.ours.error else 2 * self.macs / (self.ours.least_ms * 1e6) / self.peak


def measure(row: Row, rounds: int, folder: Path) -> Result:
    contenders = {"edgec": ours(row, folder)}
    if row.beside is None:
        contenders |= _peers(row, folder)
    else:
        contenders[row.beside.name] = ours(row.beside, folder)
    macs = artifact(row, folder)[1]
    contenders["peak"] = {"kind": "peak", "threads": 1}
    with _busy(row.busy):
        timings = compare(contenders, rounds=rounds)
    peak = timings.pop("peak")
    return Result(row, timings, macs, row.threads * PEAK_FLOPS / (peak.least_ms * 1e6))


@contextmanager
def _busy(wanted: bool) -> Iterator[None]:
    """Another process that never rests, on the last of our cores."""
    if not wanted:
        yield
        return
    last = max(os.sched_getaffinity(0))
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    os.sched_setaffinity(process.pid, {last})
    try:
        yield
    finally:
        process.kill()
        process.wait()


def ours(row: Row, folder: Path, target: str = "x86", tuning: str | None = None) -> dict[str, Any]:
    """edgec as a contender."""
    return {"kind": "edgec", "artifact": str(artifact(row, folder, target, tuning)[0]), **_common(row)}


def _peers(row: Row, folder: Path) -> dict[str, dict[str, Any]]:
    if row.program == "infer":
        model = {"model": str(onnx_model(row.model, folder)), "shapes": _shapes(row), **_common(row)}
        return {kind: {"kind": kind, **model} for kind in ("onnxruntime", "openvino")}
    task = {"shapes": _shapes(row), **_common(row), **row.train}
    if row.model in SUBJECTS:
        subject = SUBJECTS[row.model]
        task |= {"subject": row.model, "classes": subject.classes, "labels": subject.labels}
    else:
        task |= {"model": str(onnx_model(row.model, folder)), "classes": IMAGES[row.model][2]}
    return {f"torch {mode}": {"kind": "torch", "mode": mode, **task} for mode in TORCH_MODES}


def _common(row: Row) -> dict[str, Any]:
    subject = SUBJECTS.get(EXPORTED.get(row.model, row.model))
    return {
        "threads": row.threads,
        "program": row.program,
        "lr": _LR,
        "integers": subject.integers if subject else {},
    }


def _shapes(row: Row) -> dict[str, tuple[int, ...]]:
    if row.model in IMAGES:
        name, shape, _ = IMAGES[row.model]
        return {name: (row.batch, *shape)}
    shapes = SUBJECTS[EXPORTED.get(row.model, row.model)].shapes
    return {name: (row.batch, *shape) for name, shape in shapes.items()}


def artifact(row: Row, folder: Path, target: str = "x86", tuning: str | None = None) -> tuple[Path, int]:
    """The file, and the multiply-accumulates of the row's program."""
    return _compiled(row.model, row.program, row.batch, tuple(sorted(row.train.items())), target, tuning, folder)


@cache
def _compiled(
    model: str, program: str, batch: int, options: tuple, target: str, tuning: str | None, folder: Path
) -> tuple[Path, int]:
    row = Row("", model, program, batch, 1, train=dict(options))
    out = folder / f"{model}-{program}-{batch}-{abs(hash((options, target, tuning)))}.edge"
    result = api.build(request(row, folder, target, tuning), out)
    return out, result.report.programs[program].macs


def request(row: Row, folder: Path, target: str = "x86", tuning: str | None = None) -> api.Request:
    """What is compiled for a row."""
    targets = api.parse_targets(target)
    train = Train(batch=row.batch, dropout="off", **row.train) if row.program == "train" else None
    if row.model in SUBJECTS and train is not None:
        subject = SUBJECTS[row.model]
        module, inputs = subject.make().eval(), subject.inputs(row.batch)
        return api.Request(module, targets, train=train, example_inputs=inputs, tuning=tuning)
    return api.Request(onnx_model(row.model, folder), targets, _shapes(row), train=train, tuning=tuning)
