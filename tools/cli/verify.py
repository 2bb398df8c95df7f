"""`edgec verify`."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import numpy as np

from edgec.frontend.torch import is_torch, run_torch
from edgec.graph.errors import UserError
from edgec.runtime import load
from edgec.runtime.layout import read_artifact
from edgec.tools.cli.arrays import read_arrays
from edgec.tools.cli.console import echo, located, show_json, show_table
from edgec.tools.cli.options import ARTIFACT, DEVICE, JSON, MODEL, TARGET, THREADS
from edgec.tools.device_run import inputs_of, run_on_device
from edgec.tools.verify import (
    Difference,
    compare,
    draw_feeds,
    model_feeds,
    refuse_other_head,
    run_onnxruntime,
    usual_tolerance,
    worst_of,
)

# In training, an activation within rounding of a kink may take another side than torch's in double precision.
_TRAINING_SLACK = 100
_SHOWN_OF_TRAINING = 10


@click.command("verify")
@MODEL
@ARTIFACT
@click.option("--against", type=click.Choice(["onnxruntime", "torch"]), help="Who runs MODEL: torch if it is a .pt2.")
@click.option(
    "--train", is_flag=True, help="Compare a training step with torch's instead: loss, changes of parameters."
)
@click.option("--input", "inputs", type=click.Path(path_type=Path), help="Arrays by input name (.npz), else random.")
@click.option("--seed", default=0, show_default=True, help="Of the first random inputs.")
@click.option("--batches", type=click.IntRange(min=1), default=1, show_default=True, help="Random inputs to try.")
@click.option(
    "--tolerance", type=float, help="Of errors, relative to an output's largest value; 1e-4, f16 1e-2, bf16 5e-2."
)
@DEVICE
@TARGET
@THREADS
@JSON
def command(
    model: Path,
    artifact: Path,
    against: str | None,
    train: bool,
    inputs: Path | None,
    seed: int,
    batches: int,
    tolerance: float | None,
    device: str,
    target: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Run MODEL and ARTIFACT on the same inputs and show the largest error of every output. Fails above the tolerance.

    With --train one step is compared with torch's, in double precision, by the loss and the optimizer of ARTIFACT: its
    loss, and what changes in every parameter. It may be off by 100 times the tolerance, because an activation within
    rounding of a kink may take another side.

    Example: edgec verify model.onnx model.edge --batches 3 --device qemu
    """
    against = against or ("torch" if is_torch(model) else "onnxruntime")
    contents = read_artifact(artifact)
    manifest = contents.manifest
    if not train:
        refuse_other_head(manifest, artifact)
    tolerance = usual_tolerance(contents) if tolerance is None else tolerance
    if train and device != "local":
        raise click.UsageError("--train is for --device local: devices send back no parameters")
    program = "train" if train else "infer"
    given = read_arrays(inputs) if inputs else None
    with located(artifact):
        wanted = inputs_of(artifact, program)[0]
    draws = [given] if given is not None else [draw_feeds(wanted, seed + number) for number in range(batches)]
    with _explained(model, artifact, manifest):
        if train:
            runs = [_train_once(model, artifact, feeds, manifest, threads, target) for feeds in draws]
        else:
            runs = _run_all(model, against, artifact, draws, manifest, device, target, threads)
        allowed = tolerance * (_TRAINING_SLACK if train else 1)
        _report(model, artifact, worst_of(runs), allowed, as_json, train, against)


@contextlib.contextmanager
def _explained(model: Path, artifact: Path, manifest: Mapping) -> Iterator[None]:
    """What differs because this is another model's artifact is said so."""
    try:
        yield
    except UserError as error:
        provenance = manifest.get("provenance", {})
        if "model_sha256" not in provenance or not model.is_file():
            raise
        with model.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest == provenance["model_sha256"]:
            raise
        hint = f"{artifact.name} was compiled from another file, `{provenance.get('model')}`, than this {model.name}"
        raise UserError(error.code, error.message, where=error.where or str(model), hint=hint) from error


def _run_all(
    model: Path,
    against: str,
    artifact: Path,
    draws: list[dict[str, np.ndarray]],
    manifest: Mapping,
    device: str,
    target: str | None,
    threads: int | None,
) -> list[list[Difference]]:
    if device == "local":
        with located(artifact), load(artifact, threads, target=target) as opened:
            outputs = [opened.run(feeds) for feeds in draws]
    else:
        outputs = []
        for feeds in draws:
            with located(f"device {device}"):
                done = run_on_device(device, artifact, "infer", feeds, target=target, threads=threads or 1)
            outputs.append(done.outputs)
        echo(f"ran on {done.where}", err=True)
    pairs = zip(outputs, draws, strict=True)
    reference = run_torch if against == "torch" else run_onnxruntime
    return [compare(output, reference(model, model_feeds(feeds, manifest))) for output, feeds in pairs]


def _train_once(
    model: Path,
    artifact: Path,
    feeds: dict[str, np.ndarray],
    manifest: Mapping,
    threads: int | None,
    target: str | None,
) -> list[Difference]:
    from edgec.tools.verify_train import compare_step  # noqa: PLC0415

    with located(artifact), load(artifact, threads, target=target) as opened:
        return compare_step(opened, feeds, model, manifest)


def _report(
    model: Path, artifact: Path, rows: list[Difference], tolerance: float, as_json: bool, train: bool, against: str
) -> None:
    if as_json:
        outputs = {row.name: {**vars(row), "relative": row.relative} for row in rows}
        show_json({"against": "torch" if train else against, "tolerance": tolerance, "outputs": outputs})
    else:
        shown = sorted(rows, key=lambda row: -row.relative)[:_SHOWN_OF_TRAINING] if train else rows
        show_table(
            ("output", "largest error", "at", "largest value", "relative"),
            [
                (r.name, f"{r.largest_error:.3g}", _place(r), f"{r.largest_magnitude:.6g}", f"{r.relative:.3g}")
                for r in shown
            ],
        )
        if len(shown) < len(rows):
            echo(f"and {len(rows) - len(shown)} with smaller errors")
    worst = max(rows, key=lambda row: row.relative, default=None)
    # Written so that a NaN, were there one, would fail.
    if worst is not None and not worst.relative <= tolerance:
        message = f"output `{worst.name}` is off by {worst.relative:.3g} of its largest value; {tolerance:g} is allowed"
        raise UserError("E0612", message, where=f"{artifact}, {model}")


def _place(row: Difference) -> str:
    """Where the largest error is, and in which inputs if there were several."""
    if row.where is None:
        return ""
    place = f"[{', '.join(map(str, row.where))}]"
    return f"{place} of run {row.run}" if row.run else place
