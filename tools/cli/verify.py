"""`edgec verify`."""

from __future__ import annotations

from pathlib import Path

import click

from edgec.graph.errors import UserError
from edgec.runtime import load
from edgec.tools.cli.arrays import read_arrays
from edgec.tools.cli.console import echo, located, show_json, show_table
from edgec.tools.cli.options import ARTIFACT, DEVICE, JSON, MODEL, TARGET, THREADS
from edgec.tools.device_run import inputs_of, run_on_device
from edgec.tools.verify import compare, draw_feeds, run_onnxruntime


@click.command("verify")
@MODEL
@ARTIFACT
@click.option("--against", type=click.Choice(["onnxruntime"]), default="onnxruntime", help="Who runs the model.")
@click.option("--input", "inputs", type=click.Path(path_type=Path), help="Arrays by input name (.npz), else random.")
@click.option("--seed", default=0, show_default=True, help="Of random inputs.")
@click.option("--tolerance", default=1e-4, show_default=True, help="Of errors, relative to an output's largest value.")
@DEVICE
@TARGET
@THREADS
@JSON
def command(
    model: Path,
    artifact: Path,
    against: str,
    inputs: Path | None,
    seed: int,
    tolerance: float,
    device: str,
    target: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Run MODEL and ARTIFACT on the same inputs and show the largest error of every output. Fails above the tolerance.

    Example: edgec verify model.onnx model.edge --device qemu
    """
    given = read_arrays(inputs) if inputs else None
    if device == "local":
        with located(artifact), load(artifact, threads, target=target) as opened:
            feeds = given or draw_feeds(opened.inputs, seed)
            outputs = opened.run(feeds)
    else:
        feeds = given or draw_feeds(inputs_of(artifact, "infer")[0], seed)
        with located(f"device {device}"):
            done = run_on_device(device, artifact, "infer", feeds, target=target, threads=threads or 1)
        echo(f"ran on {done.where}", err=True)
        outputs = done.outputs
    rows = compare(outputs, run_onnxruntime(model, feeds))
    if as_json:
        show_json({"against": against, "outputs": {row.name: {**vars(row), "relative": row.relative} for row in rows}})
    else:
        show_table(
            ("output", "largest error", "largest value", "relative"),
            [(r.name, f"{r.largest_error:.3g}", f"{r.largest_magnitude:.6g}", f"{r.relative:.3g}") for r in rows],
        )
    worst = max(rows, key=lambda row: row.relative, default=None)
    # Written so that a NaN, were there one, would fail.
    if worst is not None and not worst.relative <= tolerance:
        message = f"output `{worst.name}` is off by {worst.relative:.3g} of its largest value; {tolerance:g} is allowed"
        raise UserError("E0612", message, where=f"{artifact}, {model}")
