"""Update schemes of a small classifier beside its full update, each factor by itself: sparsity, order, fusion, tiling.

    python -m edgec.tools.bench.schemes [--net mbv2|mcunet|proxyless] [--arena 350KB] [--plan-only] [--json] SCHEME...

A SCHEME is a preset's name or a SCHEME.toml. Arenas are planned with all passes and with some switched off; `--arena`
lets chains of the schemes run in strips until their arenas are no larger, and nothing is computed twice besides. A step
takes the median of some that take turns, on one thread.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click

from edgec.compiler.budget import counted_bytes, schedule_target
from edgec.compiler.byte_sizes import parse_bytes
from edgec.compiler.compile import lower_module
from edgec.compiler.passbase import Options, Trace
from edgec.compiler.pipeline import transform_module
from edgec.compiler.report import ProgramFigures, program_figures
from edgec.compiler.train import Train
from edgec.graph.ir import Module
from edgec.runtime.layout import write_artifact
from edgec.tools.api import Request, parse_targets
from edgec.tools.bench.compare import compare
from edgec.tools.testing.tiny_nets import STRUCTURES, tiny_net

# Nothing is computed twice but the edges of strips: a budget would else trade time for memory.
_ALWAYS = frozenset({"recompute_activations"})
# What the published "reordering" bundles, apart, and what keeps activations small.
SWITCHES = {
    "without tiling, order and in-place": frozenset({"order_operators", "pair_in_place", "place_parts"}),
    "without tiling and fusion": frozenset({"fuse_epilogue"}),
    "without tiling and small saved forms": frozenset({"shrink_saved"}),
}
_ROUNDS = 5


@dataclasses.dataclass(frozen=True)
class Row:
    """One scheme. Bytes, multiply-adds of a step, milliseconds of one; `arenas` by what was switched."""

    scheme: str
    macs: int
    saved_activation_bytes: int
    planned_bytes: int
    arenas: Mapping[str, int]
    median_ms: float | None = None


def row(net: str, scheme: str, room: int | None) -> Row:
    """`room`: bytes of arena that chains are tiled for; None to tile nothing. UserError E0405 where that cannot be."""
    options = Options(train=Train(update=scheme), skip=_ALWAYS)
    figures, planned = _plan(net, options)
    budget = None if room is None else planned - figures.arena_bytes + room
    arenas = {"without tiling": figures.arena_bytes}
    if budget is not None:
        options = dataclasses.replace(options, train=Train(update=scheme, memory_budget=budget))
        arenas = {"all passes": _plan(net, options)[0].arena_bytes} | arenas
    for name, skip in SWITCHES.items():
        switched = Options(train=Train(update=scheme), skip=_ALWAYS | skip)
        arenas[name] = _plan(net, switched)[0].arena_bytes
    return Row(_label(scheme), figures.macs, figures.saved_activation_bytes, planned, arenas)


def _plan(net: str, options: Options) -> tuple[ProgramFigures, int]:
    module = _transformed(net, options)
    (backend,) = Request("", parse_targets("x86")).backends()
    schedules = schedule_target(module, backend, options, Trace())
    return program_figures(module, "train", [schedules.programs["train"]]), counted_bytes(schedules)


def _transformed(net: str, options: Options) -> Module:
    module = tiny_net(net)
    transform_module(module, options)
    return module


def measure(net: str, schemes: list[str]) -> dict[str, float]:
    """Median milliseconds of a training step by scheme; they take turns."""
    (backend,) = Request("", parse_targets("x86")).backends()
    with tempfile.TemporaryDirectory() as folder:
        specs = {}
        for number, scheme in enumerate(schemes):
            options = Options(train=Train(update=scheme))
            path = Path(folder) / f"{number}.edge"
            write_artifact(path, lower_module(_transformed(net, options), [backend], options).artifact)
            spec = {"kind": "edgec", "artifact": str(path), "threads": 1, "program": "train", "lr": 1e-6}
            specs[_label(scheme)] = spec
        return {name: timing.median_ms for name, timing in compare(specs, rounds=_ROUNDS).items()}


def _label(scheme: str) -> str:
    return Path(scheme).stem if scheme.endswith(".toml") else scheme


@click.command()
@click.argument("schemes", nargs=-1)
@click.option("--net", type=click.Choice(list(STRUCTURES)), default="mbv2", show_default=True)
@click.option("--arena", help="Tile chains of the schemes for so much arena; the full update has none to tile.")
@click.option("--plan-only", is_flag=True, help="No kernels: planned bytes alone.")
@click.option("--json", "as_json", is_flag=True)
def main(schemes: tuple[str, ...], net: str, arena: str | None, plan_only: bool, as_json: bool) -> None:
    """Compare SCHEMES with the full update of a small classifier at 128x128, batch 1."""
    every = ["full", *schemes]
    times = {} if plan_only else measure(net, every)
    room = None if arena is None else parse_bytes(arena)
    rows = [row(net, scheme, None if scheme == "full" else room) for scheme in every]
    found = [dataclasses.replace(one, median_ms=times.get(one.scheme)) for one in rows]
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(one) for one in found]))
        return
    for one in found:
        arenas = ", ".join(f"{name} {size / 1e3:,.0f}" for name, size in one.arenas.items())
        time = "" if one.median_ms is None else f"; {one.median_ms:.2f} ms a step"
        saved = one.saved_activation_bytes / 1e3
        click.echo(
            f"{one.scheme}: arena in KB: {arenas}; saved activations {saved:,.0f}; {one.macs / 1e6:.1f} M MACs{time}"
        )
        click.echo(
            f"    times less: {', '.join(f'{name} {less:.2f}' for name, less in factors(found[0], one).items())}"
        )


def factors(full: Row, one: Row) -> dict[str, float]:
    """How many times less than the full update, and how many times less thanks to each pass."""
    plain = one.arenas["without tiling"]
    found = {"arena by sparsity": full.arenas["without tiling"] / plain}
    if tiled := one.arenas.get("all passes"):
        found |= {"by tiling": plain / tiled, "by both": full.arenas["without tiling"] / tiled}
    found["multiply-adds"] = full.macs / one.macs
    if one.median_ms is not None and full.median_ms is not None:
        found["time"] = full.median_ms / one.median_ms
    switched = {name.removeprefix("without tiling"): size for name, size in one.arenas.items() if name in SWITCHES}
    return found | {f"by{name.lstrip(',').removeprefix(' and')}": size / plain for name, size in switched.items()}


if __name__ == "__main__":
    main()
