"""Chains in strips: arena, multiply-adds and time of small image classifiers under falling memory budgets.

    python -m edgec.tools.bench.tiling [--net mbv2|mcunet|proxyless] [--update SCHEME]... [--plan-only] [--json]

The nets are those of `tools/testing/tiny_nets.py` at 128x128, batch 1, f32. Without an update, inference. A budget is a
part of the arena that the program takes without one; where it cannot be met, the row says the least that can.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from edgec.backends.targets import find_target
from edgec.backends.tvm.backend import TvmBackend
from edgec.compiler.budget import counted_bytes, schedule_target
from edgec.compiler.compile import CompileResult, lower_module
from edgec.compiler.passbase import Options, Trace
from edgec.compiler.pipeline import transform_module
from edgec.compiler.report import program_figures
from edgec.compiler.sparse.scheme import Scheme
from edgec.compiler.train import Train
from edgec.graph.errors import UserError
from edgec.runtime.layout import write_artifact
from edgec.tools.bench.compare import compare
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
    free = _schedules(net, scheme, None)
    program = "train" if update else "infer"
    arena = free.programs[program].plan.arena_bytes
    for part in (1.0, *PARTS):
        budget = None if part == 1.0 else counted_bytes(free) - int((1 - part) * arena)
        name = "none" if budget is None else f"{part:.0%} of the arena"
        try:
            yield _row(net, scheme, program, name, budget, plan_only)
        except UserError as error:
            least = int(re.search(r"at least ([\d,]+)", error.message)[1].replace(",", ""))
            yield Row(update, f"{name}: not met", least - (counted_bytes(free) - arena))


def _schedules(net: str, update: str | Scheme, budget: int | None):
    module, options = tiny_net(net), _options(update, budget)
    transform_module(module, options)
    return schedule_target(module, TvmBackend(find_target("x86")), options, Trace())


def _options(update: str | Scheme, budget: int | None) -> Options:
    if not update:
        return Options(memory_budget=budget)
    return Options(train=Train(update=update, batch=1, memory_budget=budget))


def _row(net: str, update: str | Scheme, program: str, name: str, budget: int | None, plan_only: bool) -> Row:
    module, options, backend = tiny_net(net), _options(update, budget), TvmBackend(find_target("x86"))
    transform_module(module, options)
    if plan_only:
        schedules, measured = schedule_target(module, backend, options, Trace()), {}
    else:
        result = lower_module(module, [backend], options)
        (schedules,) = result.schedules
        measured = _measure(result, program)
    figures = program_figures(module, program, [schedules.programs[program]])
    label = update if isinstance(update, str) else "scheme"
    return Row(label or "inference", name, figures.arena_bytes, figures.recomputed_macs / figures.macs, **measured)


def _measure(result: CompileResult, program: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.edge"
        write_artifact(path, result.artifact)
        spec = {"kind": "edgec", "artifact": str(path), "threads": 1, "program": program, "lr": 1e-6}
        timing = compare({"edgec": spec}, rounds=5)["edgec"]
        return {"artifact": path.stat().st_size, "median_ms": timing.median_ms}


@click.command()
@click.option("--net", type=click.Choice(list(STRUCTURES)), default="mbv2")
@click.option("--update", "updates", multiple=True, help="As of `edgec compile`; several times for several tables.")
@click.option("--plan-only", is_flag=True, help="No kernels: planned bytes, in seconds.")
@click.option("--json", "as_json", is_flag=True)
def main(net: str, updates: tuple[str, ...], plan_only: bool, as_json: bool) -> None:
    found = []
    for update in updates or ("",):
        for row in rows(net, update, plan_only):
            found.append(row)
            click.echo(_render(row), err=as_json)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in found]))


def _render(row: Row) -> str:
    parts = [f"{row.update:10} {row.budget:28} arena {row.arena / 1024:7.1f} KB, {row.extra:5.1%} on top"]
    if row.artifact is not None:
        parts.append(f"artifact {row.artifact / 1024:.0f} KB")
    if row.median_ms is not None:
        parts.append(f"{row.median_ms:.3f} ms")
    return "  ".join(parts)


if __name__ == "__main__":
    main()
