"""Transfer on real data: how much of what the full update learns does a scheme learn that fits into a memory budget?

    apt-get install dataset-fashion-mnist
    python -m edgec.tools.bench.transfer [--budget 2.5MB] [--optimizer adam] [--task REGEX] [--only REGEX] [SCHEME...]

A pretrained MCUNet (`transfer_task.py`) gets a fresh head and learns a task from a hundred images of each class, in
batches of eight, with frozen norms. Arms: the full update; `head`, `bias` and the largest `last:K` that the budget
has room for; the scheme that `edgec search` finds for the task in the same budget; and any SCHEME.toml that is given.
For all but the full update the compiler may tile and recompute to keep to the budget, as it does for any user.

Every arm has its own rate: of the same few the one that does best on two draws which only that serves, tested on
images that are in no draw; the search sees the first of these draws alone. Then each seed draws images, their order and
the head anew, the same for all arms, so differences from the full update are paired. A run that diverges, or ends with
a net that says the same of all images, is made again at the next lower rate. Intervals are Student's, 95 %.

What was found is kept in the user's cache: a run that was ended goes on where it stood, and another seed, arm or budget
computes only what is new.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import re
import statistics
import tempfile
import tomllib
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import onnx

import edgec
from edgec.backends.cache import cache_folder
from edgec.compiler.byte_sizes import wanted_bytes
from edgec.compiler.sparse.scheme import Scheme
from edgec.graph.errors import UserError
from edgec.tools.bench.compare import compare
from edgec.tools.bench.plans import Plan, contender, plan
from edgec.tools.bench.table import Table
from edgec.tools.bench.transfer_task import (
    BATCH,
    EPOCHS,
    HEAD_ROOM,
    LEARNT,
    SIZE,
    TASKS,
    WARM,
    Run,
    adapted,
    pretrained,
)
from edgec.tools.request import Request
from edgec.tools.search.journal import Journal

RATES = {"sgd": (0.05, 0.1, 0.2, 0.4, 0.8, 1.6), "adam": (0.0005, 0.001, 0.002, 0.004, 0.008)}
TUNING = (1000, 1001)  # seeds of the draws that rates are chosen on; the search sees the first
FULL, SEARCHED = "full", "searched"
SEARCH_SECONDS = 15 * 60.0
SHAPES = {"x": (1, 1, SIZE, SIZE)}
# Student's t at 97.5 %, by degrees of freedom.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
MOST_SEEDS = len(_T) + 1


@dataclass(frozen=True)
class Arm:
    """A scheme and the budget that it is compiled for; None: as much as it takes."""

    name: str
    scheme: Scheme
    budget: int | None = None

    @property
    def key(self) -> str:
        return f"{self.scheme.to_toml()} within {self.budget}"


@dataclass(frozen=True)
class Step:
    """Of a compiled arm: planned bytes; multiply-adds of a step, what is computed twice included, by those of its
    forward part.
    """

    planned_bytes: int
    macs_ratio: float


@dataclass(frozen=True)
class Interval:
    """A mean and the half width of its 95 % interval."""

    mean: float
    half: float

    @staticmethod
    def of(values: Sequence[float]) -> Interval:
        spread = statistics.stdev(values) / math.sqrt(len(values))
        return Interval(statistics.fmean(values), _T[len(values) - 2] * spread)

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} +- {100 * self.half:.1f}"


@dataclass(frozen=True)
class Row:
    """An arm on a task. `behind`: the accuracy less that of the full update with the same seed."""

    task: str
    arm: str
    step: Step
    rate: float
    accuracies: tuple[float, ...]
    accuracy: Interval
    behind: Interval | None
    median_ms: float | None = None


class Experiment:
    """The arms of one net within one budget. Results come from the journal where it has them."""

    def __init__(self, net: Path, optimizer: str, budget: int, folder: Path, journal: Journal):
        self._net, self._optimizer, self.budget = net, optimizer, budget
        self._folder, self._journal = folder, journal
        self._compiled: dict[Arm, Path] = {}

    # -- arms -------------------------------------------------------------------------------------------------------

    def arms(self, task: str, schemes: Sequence[Path], only: str) -> Iterator[Arm]:
        """Those whose names `only` matches, and the full update, which they are compared with."""
        yield Arm(FULL, Scheme("full"))
        found = {name: functools.partial(Scheme, name) for name in ("head", "bias")}
        found["last:K"] = lambda: Scheme(f"last:{self.most_layers()}")
        found |= {path.stem: functools.partial(Scheme.from_toml, path) for path in schemes}
        found[SEARCHED] = lambda: self.searched(task)
        for name, scheme in found.items():
            if re.search(only, name):
                made = scheme()
                yield Arm(made.base if name == "last:K" else name, made, self.budget)

    def most_layers(self) -> int:
        """The largest K for which `last:K` can be planned within the budget: what K needs grows with it."""
        layers = sum(node.op_type in ("Conv", "Gemm") for node in onnx.load(self._net).graph.node)

        def fits(count: int) -> bool:
            scheme = Scheme(f"last:{count}")
            return self._journal.recall(f"fits {Arm('', scheme, self.budget).key}", lambda: self._fits(scheme))

        return max(1, bisect_left(range(1, layers + 1), True, key=lambda count: not fits(count)))

    def _fits(self, scheme: Scheme) -> bool:
        try:
            self._plan(Arm("", scheme, self.budget))
        except UserError as error:
            if error.code != "E0405":
                raise
            return False
        return True

    def searched(self, task: str) -> Scheme:
        return Scheme.of_table(tomllib.loads(self.search(task)["scheme"]))

    def search(self, task: str) -> dict[str, Any]:
        """`scheme` as it is written down, and `seconds`."""

        def find() -> dict[str, Any]:
            found = edgec.search(
                self._net,
                data=TASKS[task].draw(TUNING[0]),
                memory_budget=self.budget,
                train=edgec.Train(optimizer=self._optimizer, batch=BATCH),
                shapes=SHAPES,
                new_head=len(TASKS[task].classes),
                time_limit=SEARCH_SECONDS,
            )
            return {"scheme": found.scheme.to_toml(), "seconds": found.seconds}

        return self._journal.recall(f"search {task} within {self.budget}", find)

    def _plan(self, arm: Arm, out: Path | None = None) -> Plan:
        train = edgec.Train(optimizer=self._optimizer, batch=BATCH, update=arm.scheme, memory_budget=arm.budget)
        return self._planned(train, out)

    def _planned(self, train: edgec.Train | None, out: Path | None) -> Plan:
        request = Request(self._net, (), SHAPES, train=train, new_head=edgec.NewHead(HEAD_ROOM))
        return plan(request.read(), request.options, out)

    # -- runs -------------------------------------------------------------------------------------------------------

    def artifact(self, arm: Arm) -> Path:
        if arm not in self._compiled:
            path = self._folder / f"{len(self._compiled)}.edge"
            made = self._plan(arm, path)
            macs, forward = made.figures.macs * (1 + made.again), BATCH * self._planned(None, None).figures.macs
            self._journal.recall(f"step {arm.key}", lambda: [made.counted, macs / forward])
            self._compiled[arm] = path
        return self._compiled[arm]

    def step(self, arm: Arm) -> Step:
        if f"step {arm.key}" not in self._journal:
            self.artifact(arm)
        return Step(*self._journal.recall(f"step {arm.key}", list))

    def accuracy(self, arm: Arm, run: Run) -> float | None:
        return self._journal.recall(f"run {run} {arm.key}", lambda: adapted(self.artifact(arm), run))

    def rate(self, arm: Arm, task: str) -> float:
        """The one that does best on the draws for tuning, of which one that diverges counts as it would be tested."""

        def accuracy(rate: float) -> float:
            return sum(self.tested(arm, Run(task, rate, seed, validated=True)) for seed in TUNING)

        return max(RATES[self._optimizer], key=accuracy)

    def tested(self, arm: Arm, run: Run) -> float:
        """At the run's rate, or the first below it at which it does not diverge."""
        for lower in (rate for rate in reversed(RATES[self._optimizer]) if rate <= run.rate):
            found = self.accuracy(arm, dataclasses.replace(run, rate=lower))
            if found is not None:
                return found
        return 0.0

    def row(self, arm: Arm, task: str, seeds: int, full: Row | None) -> Row:
        rate = self.rate(arm, task)
        found = tuple(self.tested(arm, Run(task, rate, seed)) for seed in range(seeds))
        behind = None
        if full is not None:
            behind = Interval.of([one - other for one, other in zip(found, full.accuracies, strict=True)])
        return Row(task, arm.name, self.step(arm), rate, found, Interval.of(found), behind)

    def timed(self, arms: Sequence[Arm], rounds: int) -> dict[Arm, float]:
        """Milliseconds of a step; they take turns."""
        specs = {arm.key: contender(self.artifact(arm)) for arm in arms}
        timings = compare(specs, rounds=rounds)
        return {arm: timings[arm.key].median_ms for arm in arms}


def rows(experiment: Experiment, arms: Mapping[str, Sequence[Arm]], seeds: int) -> Iterator[Row]:
    for task, listed in arms.items():
        full = None
        for arm in listed:
            row = experiment.row(arm, task, seeds, full)
            full = full or row
            yield row


def journal_path(net: Path, optimizer: str) -> Path:
    """One for each net and way to train it."""
    setting = (hashlib.sha256(net.read_bytes()).hexdigest(), optimizer, SIZE, LEARNT, BATCH, EPOCHS, WARM)
    return cache_folder() / "transfer" / f"{hashlib.sha256(repr(setting).encode()).hexdigest()[:12]}.jsonl"


@click.command()
@click.argument("schemes", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--budget", default="2.5MB", show_default=True, help="Of planned bytes, for all but the full update.")
@click.option("--optimizer", type=click.Choice(list(RATES)), default="sgd", show_default=True)
@click.option("--seeds", type=click.IntRange(2, MOST_SEEDS), default=5, show_default=True)
@click.option("--task", "tasks", default="", help="A regular expression on the names of the tasks.")
@click.option(
    "--only", default="", help="A regular expression on the names of the arms; the full update is always there."
)
@click.option("--rounds", type=click.IntRange(0), default=3, show_default=True, help="Of the timing; 0: none.")
@click.option("--json", "as_json", is_flag=True)
def main(
    schemes: tuple[Path, ...],
    budget: str,
    optimizer: str,
    seeds: int,
    tasks: str,
    only: str,
    rounds: int,
    as_json: bool,
) -> None:
    """Adapt a pretrained MCUNet by update schemes that fit into a memory budget, SCHEMES (.toml) among them."""
    try:
        net = pretrained(_say)
        with tempfile.TemporaryDirectory() as folder:
            journal = Journal(journal_path(net, optimizer))
            experiment = Experiment(net, optimizer, wanted_bytes("--budget", budget), Path(folder), journal)
            chosen = {name: list(experiment.arms(name, schemes, only)) for name in TASKS if re.search(tasks, name)}
            found = []
            for row in rows(experiment, chosen, seeds):
                found.append(row)
                _say(rendered(row))
            if rounds:
                every = list(dict.fromkeys(arm for listed in chosen.values() for arm in listed))
                times = experiment.timed(every, rounds)
                of_row = [arm for listed in chosen.values() for arm in listed]
                found = [dataclasses.replace(row, median_ms=times[arm]) for row, arm in zip(found, of_row, strict=True)]
    except UserError as error:
        raise click.ClickException(str(error)) from None
    searches = {task: experiment.search(task)["seconds"] for task in chosen if _has(chosen[task], SEARCHED)}
    if as_json:
        click.echo(json.dumps({"rows": [dataclasses.asdict(row) for row in found], "search_seconds": searches}))
        return
    click.echo(COLUMNS.head())
    for row in found:
        click.echo(rendered(row))
    for task, seconds in searches.items():
        click.echo(f"search for `{task}`: {seconds / 60:.1f} minutes")


def _has(arms: Sequence[Arm], name: str) -> bool:
    return any(arm.name == name for arm in arms)


COLUMNS = Table(
    ("task", "8"),
    ("arm", "12"),
    ("planned KB", ",.0f"),
    ("step / forward", ".2f"),
    ("ms a step", ".2f"),
    ("rate", "g"),
    ("accuracy %", "12"),
    ("less the full update's", "22"),
)


def rendered(row: Row) -> str:
    behind = "" if row.behind is None else str(row.behind)
    size, ratio = row.step.planned_bytes / 1e3, row.step.macs_ratio
    return COLUMNS.row(row.task, row.arm, size, ratio, row.median_ms, row.rate, str(row.accuracy), behind)


def _say(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    main()
