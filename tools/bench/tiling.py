"""Chains in strips: arena, multiply-adds and time of small image classifiers under falling memory budgets.

    python -m edgec.tools.bench.tiling [--net mbv2|mcunet|proxyless] [--update SCHEME]... [--plan-only] [--json]

The nets are those of `tools/testing/tiny_nets.py` at 128x128, batch 1, f32. Without an update, inference. A budget is a
part of the arena that the program takes without one; where it cannot be met, the row says the least that can.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from edgec.compiler.passbase import Options
from edgec.compiler.sparse.scheme import Scheme
from edgec.compiler.train import Train
from edgec.graph.errors import UserError
from edgec.tools.bench.compare import compare
from edgec.tools.bench.plans import Plan, contender, least_bytes, plan
from edgec.tools.bench.table import Table
from edgec.tools.testing.tiny_nets import STRUCTURES, tiny_net

PARTS = (0.7, 0.5, 0.4, 0.3)  # of the arena without a budget


@dataclass(frozen=True)
class Row:
    """One budget. Bytes; multiply-adds on top, as a share; milliseconds of a step or an inference."""

    update: str
    budget: str
    arena: int
    extra: float = 0.0
    artifact: int | None = None
    median_ms: float | None = None


def rows(net: str, update: str, plan_only: bool) -> Iterator[Row]:
    """The plan without a budget, and one for each of `PARTS`; `update` is empty for inference."""
    scheme = Scheme.from_toml(update) if update.endswith(".toml") else update
    free = plan(tiny_net(net), _options(scheme, None))
    for part in (1.0, *PARTS):
        budget = None if part == 1.0 else free.budget(part)
        name = "none" if budget is None else f"{part:.0%} of the arena"
        try:
            yield _row(net, scheme, name, budget, plan_only)
        except UserError as error:
            least = least_bytes(error) - (free.counted - free.arena)
            yield Row(_label(scheme), f"{name}: not met", least)


def _options(update: str | Scheme, budget: int | None) -> Options:
    if not update:
        return Options(memory_budget=budget)
    return Options(train=Train(update=update, batch=1, memory_budget=budget))


def _label(update: str | Scheme) -> str:
    return (update or "inference") if isinstance(update, str) else "scheme"


def _row(net: str, update: str | Scheme, name: str, budget: int | None, plan_only: bool) -> Row:
    module, options = tiny_net(net), _options(update, budget)
    if plan_only:
        return _figures(update, name, plan(module, options))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.edge"
        made = plan(module, options, path)
        spec = contender(path, "train" if update else "infer")
        timing = compare({"edgec": spec}, rounds=5)["edgec"]
        row = _figures(update, name, made)
        return dataclasses.replace(row, artifact=path.stat().st_size, median_ms=timing.median_ms)


def _figures(update: str | Scheme, budget: str, made: Plan) -> Row:
    return Row(_label(update), budget, made.arena, made.again)


COLUMNS = Table(
    ("", "10"),
    ("budget", "24"),
    ("arena KB", ",.1f"),
    ("on top", ".1%"),
    ("artifact KB", ",.0f"),
    ("ms", ".3f"),
)


@click.command()
@click.option("--net", type=click.Choice(list(STRUCTURES)), default="mbv2")
@click.option("--update", "updates", multiple=True, help="As of `edgec compile`; several times for several tables.")
@click.option("--plan-only", is_flag=True, help="No kernels: planned bytes, in seconds.")
@click.option("--json", "as_json", is_flag=True)
def main(net: str, updates: tuple[str, ...], plan_only: bool, as_json: bool) -> None:
    found = []
    click.echo(COLUMNS.head(), err=as_json)
    for update in updates or ("",):
        for row in rows(net, update, plan_only):
            found.append(row)
            artifact = None if row.artifact is None else row.artifact / 1e3
            line = COLUMNS.row(row.update, row.budget, row.arena / 1e3, row.extra, artifact, row.median_ms)
            click.echo(line, err=as_json)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in found]))


if __name__ == "__main__":
    main()
