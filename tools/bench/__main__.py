"""`make bench`: models by program by threads, against each peer's best configuration, interleaved in one run.

    python -m edgec.tools.bench [--only REGEX] [--rounds N] [--picture OUT.svg] [--json]

Ratios are ours over the fastest peer's: below 1 is faster. On a shared machine only the ratios mean something; the one
in brackets is of what neighbours disturb less: the processor's time of one thread, the least times of several. The
share is of a large matrix product's speed in the same run.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from edgec.tools.bench.measure import Result, measure
from edgec.tools.bench.picture import draw
from edgec.tools.bench.rows import rows


def render(result: Result) -> Iterator[str]:
    row, ours = result.row, result.ours
    if ours.error:
        yield f"{row.name}: not measured: {ours.error}"
        return
    yield f"{row.name}: {ours.median_ms:.3f} ms (spread {ours.spread_ms:.3f}), {result.share():.0%} of the peak"
    fastest = result.fastest()
    for name, timing in result.timings.items():
        if name == "edgec":
            continue
        if timing.error:
            yield f"    {name:20} not measured: {timing.error}"
            continue
        ratio, other = ours.median_ms / timing.median_ms, result.undisturbed_ratio(name)
        line = (
            f"    {name:20} {timing.median_ms:9.3f} ms (spread {timing.spread_ms:.3f})  ratio {ratio:.2f} [{other:.2f}]"
        )
        yield line + (f"  {_verdict(row.bar, row.goal, ratio)}" if name == fastest and row.bar else "")


def _verdict(bar: float, goal: float | None, ratio: float) -> str:
    reached = "misses" if ratio > bar else "meets" if goal is None or ratio > goal else "beats the goal of"
    return f"{reached} {goal if reached.startswith('beats') else bar}"


def to_json(result: Result) -> dict:
    fastest = result.fastest()
    other = result.undisturbed_ratio(fastest) if fastest else None
    figures = {"ratio": result.ratio(), "undisturbed_ratio": other, "share": result.share()}
    return {**asdict(result), **figures, "fastest": fastest}


@click.command()
@click.option("--only", default="", help="A regular expression on the names of the rows.")
@click.option("--rounds", default=10, show_default=True)
@click.option("--list", "as_list", is_flag=True, help="Name the rows and measure nothing.")
@click.option("--picture", type=click.Path(path_type=Path), help="An SVG file of the ratios.")
@click.option("--json", "as_json", is_flag=True)
def main(only: str, rounds: int, as_list: bool, picture: Path | None, as_json: bool) -> None:
    chosen = [row for row in rows() if re.search(only, row.name)]
    if as_list:
        click.echo("\n".join(row.name for row in chosen))
        return
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for row in chosen:
            result = measure(row, rounds, Path(folder))
            results.append(result)
            for line in render(result):
                click.echo(line, err=as_json)
    if picture is not None:
        picture.write_text(draw(results), encoding="utf-8")
    if as_json:
        click.echo(json.dumps({result.row.name: to_json(result) for result in results}))
    if any(result.ours.error for result in results):
        sys.exit(1)


if __name__ == "__main__":
    main()
