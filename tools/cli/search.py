"""`edgec search`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgec.tools.cli.arrays import read_arrays
from edgec.tools.cli.console import echo, format_bytes, show_json, show_table
from edgec.tools.cli.options import JSON, MODEL, THREADS, TUNING, compilation, make_request
from edgec.tools.cli.progress import format_seconds, search_display

_SHOWN = 12


@click.command("search")
@MODEL
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Arrays by input name, and labels (.npz).")
@click.option(
    "-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The SCHEME.toml to write."
)
@click.option("--lr", type=click.FloatRange(min=0, min_open=True), help="Of measuring runs; found if not given.")
@click.option("--steps", type=click.IntRange(min=1), help="Updates of a measuring run; by default what time allows.")
@click.option(
    "--step-ratio",
    type=click.FloatRange(min=1),
    help="At most so many times the multiply-adds of the forward part in a step.",
)
@click.option(
    "--time-limit", type=click.FloatRange(min=0), default=20.0, show_default=True, help="Minutes; then the best so far."
)
@compilation
@TUNING
@THREADS
@JSON
def command(
    model: Path,
    data: Path,
    output: Path,
    lr: float | None,
    steps: int | None,
    step_ratio: float | None,
    time_limit: float,
    threads: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Find which weights, biases and channels of MODEL to train on data, within --memory-budget.

    It measures what every weight and depth of biases gains in short runs, and takes the scheme whose plan keeps to the
    budget and that gains most. Options of training are those of `edgec compile`. A search that was interrupted goes on
    where it was.

    Example: edgec search model.onnx --memory-budget 512KB --data train.npz --train-batch 8 -o scheme.toml
    """
    if options["update"] is not None:
        raise click.UsageError("--update is what is searched for")
    if options["memory_budget"] is None:
        raise click.UsageError("a search needs --memory-budget, as in 512KB")
    request = make_request(model, **options | {"specification": options["specification"] or ""})
    from edgec.tools.search.api import wanted_budget, write_scheme  # noqa: PLC0415  after the options were checked
    from edgec.tools.search.report import Wish  # noqa: PLC0415  as above
    from edgec.tools.search.run import find_scheme  # noqa: PLC0415  as above

    assert request.train is not None
    arrays = read_arrays(data)
    wish = Wish(
        wanted_budget(request.train.memory_budget), step_ratio, lr, steps, 60 * time_limit, request.train.seed, threads
    )
    with search_display() as say:
        report = find_scheme(request, arrays, wish, say)
    write_scheme(report, output)
    if as_json:
        show_json(report.to_json())
        return
    echo(
        f"{output}: {format_bytes(report.planned_bytes)} of {format_bytes(report.budget)}, "
        f"{report.macs_ratio:.2f} times the multiply-adds of the forward part, in {format_seconds(report.seconds)}"
    )
    runs = (("head", "head"), ("head and all biases", "bias"), ("the scheme", "found"))
    figures = vars(report)
    show_table(
        (f"after {report.steps} steps", "held-out loss", "accuracy"),
        [(label, f"{figures[f'{name}_loss']:.4f}", _percent(figures[f"{name}_accuracy"])) for label, name in runs],
    )
    echo("")
    ratios = {rule.pattern: rule.ratio for rule in report.scheme.weights}
    rows = sorted(report.contributions, key=lambda one: -one.gain)[:_SHOWN]
    show_table(
        ("weight", "gain", "by", "trained"),
        [
            (one.name, f"{one.gain:+.4f}", "measured" if one.measured else "estimate", f"{ratios.get(one.name, 0):g}")
            for one in rows
        ],
    )
    if len(report.contributions) > len(rows):
        echo(f"and {len(report.contributions) - len(rows)} weights that gain less")


def _percent(accuracy: float | None) -> str:
    return "" if accuracy is None else f"{accuracy:.1%}"
