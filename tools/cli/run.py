"""`edgec run`."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from edgec.graph.errors import UserError
from edgec.runtime import load
from edgec.tools.cli.arrays import read_arrays, write_arrays
from edgec.tools.cli.console import echo, located, show_json, show_table
from edgec.tools.cli.options import ARTIFACT, DEVICE, JSON, LIBRARIES, TARGET, THREADS


@click.command("run")
@ARTIFACT
@click.option("--input", "inputs", required=True, type=click.Path(path_type=Path), help="Arrays by input name (.npz).")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Where the outputs go (.npz).")
@click.option("--program", default="infer", show_default=True, help="Which program to run.")
@DEVICE
@TARGET
@LIBRARIES
@THREADS
@click.option("--check-finite", is_flag=True, help="Fail if an output holds a NaN or an infinity.")
@JSON
def command(
    artifact: Path,
    inputs: Path,
    output: Path | None,
    program: str,
    device: str,
    target: str | None,
    libraries: tuple[str, ...],
    threads: int | None,
    check_finite: bool,
    as_json: bool,
) -> None:
    """Run one inference of ARTIFACT, here or on a device.

    Example: edgec run model.edge --input in.npz -o out.npz --device ssh://pi@raspberrypi
    """
    if device == "local":
        with located(artifact), load(artifact, threads, target=target, libraries=libraries) as model:
            model.signature(program)
            with located(inputs):
                outputs = model.run(read_arrays(inputs), program=program)
    else:
        outputs = _run_elsewhere(device, artifact, program, read_arrays(inputs), target, threads)
    if check_finite:
        with located(f"{artifact}, {inputs}"):
            _require_finite(outputs)
    if output is not None:
        write_arrays(output, outputs)
    if as_json:
        show_json({"outputs": {name: _summary(array) for name, array in outputs.items()}})
        return
    show_table(
        ("output", "type", "least", "mean", "greatest"),
        [
            (name, f"{array.dtype}[{','.join(map(str, array.shape))}]", *_figures(array))
            for name, array in outputs.items()
        ],
    )


def _run_elsewhere(
    device: str,
    artifact: Path,
    program: str,
    feeds: dict[str, np.ndarray],
    target: str | None,
    threads: int | None,
) -> dict[str, np.ndarray]:
    from edgec.tools.device_run import run_on_device  # noqa: PLC0415  a device that runs by itself lacks what it loads

    with located(f"device {device}"):
        done = run_on_device(device, artifact, program, feeds, target=target, threads=threads or 1)
    echo(f"ran on {done.where}", err=True)
    return done.outputs


def _require_finite(outputs: dict[str, np.ndarray]) -> None:
    for name, array in outputs.items():
        bad = int(np.count_nonzero(~np.isfinite(array)))
        if bad:
            raise UserError("E0611", f"{bad} of {array.size} values of output `{name}` are not finite")


def _figures(array: np.ndarray) -> tuple[str, str, str]:
    return ("", "", "") if not array.size else tuple(f"{f(array):.6g}" for f in (np.min, np.mean, np.max))


def _summary(array: np.ndarray) -> dict:
    figures = {} if not array.size else {f.__name__: float(f(array)) for f in (np.min, np.mean, np.max)}
    return {"dtype": array.dtype.name, "shape": list(array.shape), **figures}
