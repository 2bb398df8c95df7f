"""`edgec tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgec.tools.cli.console import echo, show_json, show_table
from edgec.tools.cli.interrupt import polite_interrupts
from edgec.tools.cli.options import JSON, MODEL, compilation, make_request
from edgec.tools.cli.progress import format_seconds, tune_display

_SHOWN = 12


@click.command("tune")
@MODEL
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The database; by default one in the cache folder, where `edgec compile` finds it.",
)
@click.option(
    "--time-limit", type=click.FloatRange(min=0), default=20.0, show_default=True, help="Minutes; then what is known."
)
@click.option(
    "--candidates", type=click.IntRange(min=2), default=12, show_default=True, help="Ways to measure for each class."
)
@click.option("--again", is_flag=True, help="Measure what is in the database too.")
@compilation
@JSON
def command(
    model: Path, output: Path | None, time_limit: float, candidates: int, again: bool, as_json: bool, **options: Any
) -> None:
    """Measure on this machine how the kernels of MODEL are best made, and keep what beats the cost model's choice.

    What is kept speaks for classes of shapes, not for the model: every later compilation for the same instruction set
    uses it. Options are those of `edgec compile`. A run that was interrupted goes on where it was.

    Example: edgec tune model.onnx --train --train-batch 8 --time-limit 10
    """
    request = make_request(model, **options)
    from edgec.backends.tvm.tuning.database import user_path  # noqa: PLC0415  after the options were checked
    from edgec.tools.tune.run import Wish, tune  # noqa: PLC0415  as above

    wish = Wish(candidates, 60 * time_limit, again)
    with polite_interrupts() as stopped, tune_display() as say:
        report = tune(request, output or user_path(), wish, say, stopped)
    if as_json:
        show_json(report.to_json())
        return
    better = sorted((one for one in report.measured if one.parameters), key=lambda one: -one.gain * one.share)
    echo(
        f"{report.database}: {len(report.measured)} classes measured in {format_seconds(report.seconds)}, "
        f"{len(better)} better than the model's choice; {report.known} known before, {report.left} left"
    )
    if better:
        show_table(
            ("class", "choice", "times as fast", "share"),
            [
                (
                    one.key,
                    " ".join(f"{name}:{value}" for name, value in one.parameters.items()),
                    f"{one.gain:.2f}",
                    f"{one.share:.1%}",
                )
                for one in better[:_SHOWN]
            ],
        )
    if len(better) > _SHOWN:
        echo(f"and {len(better) - _SHOWN} more")
