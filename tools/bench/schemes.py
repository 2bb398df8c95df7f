"""An update scheme of a small classifier beside its full update, each factor by itself: sparsity, and every pass.

    python -m edgec.tools.bench.schemes [--net mbv2|mcunet|proxyless] [--plan-only] [--json] SCHEME

SCHEME is a preset's name or a SCHEME.toml; images of 128x128, batch 1, f32. Each row is a policy, the same for both:
the passes that keep memory small come one after the other. Tiling and computing again trade multiply-adds for memory,
so their rows say how many may be done twice: budgets fall by twentieths of the arena while a plan stays below that.
A step takes the median of some that take turns, on one thread, beside the distance of the quartiles.
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
from edgec.compiler.train import Train
from edgec.graph.errors import UserError
from edgec.tools.bench.compare import Timing, compare
from edgec.tools.bench.plans import Plan, contender, plan
from edgec.tools.bench.table import Table
from edgec.tools.testing.tiny_nets import STRUCTURES, tiny_net

_ORDER = frozenset({"order_operators", "place_parts"})
_FORMS = frozenset({"shrink_saved", "keep_positions"})
_TRADES = frozenset({"tile_chains", "recompute_activations"})
_PARTS = 20  # of an arena, by which budgets fall
_ROUNDS = 5


@dataclass(frozen=True)
class Policy:
    """What is left out, and which share of the multiply-adds may be done twice to save memory."""

    name: str
    skip: frozenset[str]
    twice: float = 0.0


POLICIES = (
    Policy("no pass for memory", _TRADES | _FORMS | _ORDER | {"fuse_epilogue", "pair_in_place"}),
    Policy("+ in place", _TRADES | _FORMS | _ORDER | {"fuse_epilogue"}),
    Policy("+ order, parts in place", _TRADES | _FORMS | {"fuse_epilogue"}),
    Policy("+ fusion", _TRADES | _FORMS),
    Policy("+ small saved forms", _TRADES),
    Policy("+ tiling, 1 % twice", frozenset({"recompute_activations"}), 0.01),
    Policy("+ tiling, 10 % twice", frozenset({"recompute_activations"}), 0.1),
    Policy("+ recomputation, 10 % twice", frozenset(), 0.1),
)


@dataclass(frozen=True)
class Row:
    """One policy. Bytes of arena, shares of multiply-adds that are done twice, timings of a step; each full, scheme."""

    policy: str
    arenas: tuple[int, int]
    twice: tuple[float, float]
    times: tuple[Timing, Timing] | None = None


class Side:
    """The full update, or the scheme."""

    def __init__(self, net: str, update: str):
        self._net, self._update = net, update

    def plan(self, policy: Policy, out: Path | None = None) -> Plan:
        """The smallest arena of those that the policy allows; its artifact where a path is given."""
        free = self._made(policy, None, None)
        found, budget = free, None
        if policy.twice:
            for part in range(_PARTS - 1, 0, -1):
                wanted = free.budget(part / _PARTS)
                if wanted >= found.counted:
                    continue
                try:
                    smaller = self._made(policy, wanted, None)
                except UserError:
                    break
                if smaller.again > policy.twice:
                    break
                found, budget = smaller, wanted
        return found if out is None else self._made(policy, budget, out)

    def _made(self, policy: Policy, budget: int | None, out: Path | None) -> Plan:
        train = Train(update=self._update, memory_budget=budget)
        return plan(tiny_net(self._net), Options(train=train, skip=policy.skip), out)


def rows(net: str, scheme: str, folder: Path | None) -> Iterator[tuple[Row, tuple[Plan, Plan]]]:
    """A row for each policy; artifacts lie in `folder`, where there is one, under the number of policy and side."""
    sides = [Side(net, "full"), Side(net, scheme)]
    for number, policy in enumerate(POLICIES):
        outs = [None if folder is None else _artifact(folder, number, i) for i in range(2)]
        full, sparse = (side.plan(policy, out) for side, out in zip(sides, outs, strict=True))
        yield Row(policy.name, (full.arena, sparse.arena), (full.again, sparse.again)), (full, sparse)


def _artifact(folder: Path, policy: int, side: int) -> Path:
    return folder / f"{policy}-{side}.edge"


def timed(table: list[Row], folder: Path) -> list[Row]:
    """All steps of the table take turns."""
    specs = {str((i, side)): contender(_artifact(folder, i, side)) for i in range(len(table)) for side in (0, 1)}
    times = compare(specs, rounds=_ROUNDS)
    return [dataclasses.replace(row, times=(times[str((i, 0))], times[str((i, 1))])) for i, row in enumerate(table)]


COLUMNS = Table(
    ("", "28"),
    ("full KB", ",.0f"),
    ("twice", ".1%"),
    ("scheme KB", ",.0f"),
    ("twice", ".1%"),
    ("times less", ".2f"),
    ("full ms", "13"),
    ("scheme ms", "13"),
    ("times faster", ".2f"),
)


def rendered(row: Row) -> str:
    full, sparse = (size / 1e3 for size in row.arenas)
    times = (None, None, None)
    if row.times is not None:
        slow, fast = row.times
        times = (*(f"{t.median_ms:.2f} ({t.spread_ms:.2f})" for t in row.times), slow.median_ms / fast.median_ms)
    return COLUMNS.row(row.policy, full, row.twice[0], sparse, row.twice[1], full / sparse, *times)


@click.command()
@click.argument("scheme")
@click.option("--net", type=click.Choice(list(STRUCTURES)), default="mbv2", show_default=True)
@click.option("--plan-only", is_flag=True, help="No kernels: planned bytes alone.")
@click.option("--json", "as_json", is_flag=True)
def main(scheme: str, net: str, plan_only: bool, as_json: bool) -> None:
    """Compare SCHEME with the full update of a small classifier."""
    with tempfile.TemporaryDirectory() as name:
        folder = None if plan_only else Path(name)
        table = []
        for row, (full, sparse) in rows(net, scheme, folder):
            if not table:
                click.echo(f"{net}: {_sparsity(full, sparse)}\n", err=as_json)
                click.echo(COLUMNS.head(), err=as_json)
            table.append(row)
            if plan_only:
                click.echo(rendered(row), err=as_json)
        if not plan_only:
            table = timed(table, folder)
            for row in table:
                click.echo(rendered(row), err=as_json)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in table]))


def _sparsity(full: Plan, sparse: Plan) -> str:
    macs = [side.figures.macs / 1e6 for side in (full, sparse)]
    return f"{macs[0]:.1f} M multiply-adds a step, the scheme {macs[1]:.1f} M: {macs[0] / macs[1]:.2f} times less"


if __name__ == "__main__":
    main()
