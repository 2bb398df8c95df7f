"""`edgec check`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from edgec.graph.errors import UserError
from edgec.tools.cli.console import echo, format_bytes, format_count, show_error, show_json, show_table
from edgec.tools.cli.options import JSON, MODEL, TUNING, compilation, make_request


@click.command("check")
@MODEL
@compilation
@TUNING
@JSON
def command(model: Path, as_json: bool, **options: Any) -> int:
    """Say what of MODEL cannot be imported, differentiated or lowered for the targets, and the bytes it will need.

    Goes through all phases but code generation, in seconds. With --train it lists every operator where a gradient ends,
    with the reason, and the parameters that none reaches.

    Example: edgec check model.onnx --target rpi4,cortex-m7 --train
    """
    request = make_request(model, **options)
    from edgec.tools.api import check, problems  # noqa: PLC0415  after the options were checked

    try:
        forecast = check(request)
    except UserError as error:
        return _show_problems(problems(request) or [error], as_json)
    if as_json:
        show_json(dataclasses.asdict(forecast) | {"training_bytes": forecast.training_bytes()})
        return 0
    trained = f", {format_bytes(forecast.trained_bytes)} of them trained" if forecast.trained_bytes else ""
    echo(f"{model} can be compiled: parameters {format_bytes(forecast.param_bytes)}{trained}")
    show_table(
        ("target", "program", "ops", "MACs", "arena", "state"),
        [
            (
                target,
                name,
                str(figures.ops),
                format_count(figures.macs),
                format_bytes(figures.arena_bytes),
                format_bytes(figures.state_bytes),
            )
            for target, programs in forecast.programs.items()
            for name, figures in programs.items()
        ],
    )
    for target, count in forecast.training_bytes().items():
        echo(f"training on {target} needs {format_bytes(count)}: arena, state, trained parameters")
    _show_ends(forecast.no_gradient, forecast.untrained)
    return 0


def _show_ends(no_gradient: list[dict[str, str]], untrained: list[str]) -> None:
    if no_gradient:
        echo("no gradient passes:")
        show_table(("node", "op", "because"), [(end["node"], end["op"], end["reason"]) for end in no_gradient])
    if untrained:
        echo(f"no gradient reaches, and nothing changes: {', '.join(untrained)}")


def _show_problems(problems: list[UserError], as_json: bool) -> int:
    if as_json:
        names = ("code", "message", "where", "hint", "nodes")
        show_json({"problems": [{name: getattr(problem, name) for name in names} for problem in problems]})
    for problem in problems:
        show_error(problem)
    return 1
