"""`edgec profile`."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

import click

from edgec.graph.errors import UserError
from edgec.runtime import CallProfile, load
from edgec.tools.cli.console import echo, format_count, show_json, show_table
from edgec.tools.cli.options import ARTIFACT, JSON, THREADS
from edgec.tools.verify import draw_feeds


@dataclass(frozen=True)
class CallTime:
    """One call of the plan over several runs: the median of its durations."""

    kernel: str
    label: str
    macs: int
    nanoseconds: int


@click.command("profile")
@ARTIFACT
@click.option("--program", default="infer", show_default=True, help="Which program to run, on random inputs.")
@click.option(
    "--runs", default=20, show_default=True, type=click.IntRange(min=1), help="How often, after one unmeasured."
)
@click.option(
    "--trace", type=click.Path(dir_okay=False, path_type=Path), help="Write the last run for Perfetto (.json)."
)
@THREADS
@JSON
def command(artifact: Path, program: str, runs: int, trace: Path | None, threads: int | None, as_json: bool) -> None:
    """Show the time of every kernel call of ARTIFACT.

    Example: edgec profile model.edge --program train --threads 1 --trace step.json
    """
    with load(artifact, threads) as model:
        signature = model.signature(program)
        feeds = draw_feeds(signature.inputs, seed=0) | {info.name: 0 for info in signature.scalars}
        # On a session of its own, so that `model.run`'s defaults do not matter.
        with model.session(threads) as session:
            session.run(program, feeds)
            measured = []
            for _ in range(runs):
                with session.profile() as calls:
                    session.run(program, feeds)
                measured.append(calls)
    rows = summarise(measured)
    if trace is not None:
        _write_trace(trace, measured[-1])
    if as_json:
        show_json({"program": program, "runs": runs, "calls": [vars(row) for row in rows]})
    else:
        _show(rows)


def summarise(runs: list[list[CallProfile]]) -> list[CallTime]:
    """Call by call, in the order of the plan: every run makes the same calls."""
    return [
        CallTime(same[0].kernel, same[0].label, same[0].macs, int(statistics.median(call.ns for call in same)))
        for same in zip(*runs, strict=True)
    ]


def _show(rows: list[CallTime]) -> None:
    total = sum(row.nanoseconds for row in rows)
    show_table(
        ("source", "kernel", "microseconds", "share", "MACs/s"),
        [
            (
                row.label,
                row.kernel,
                f"{row.nanoseconds / 1e3:.1f}",
                f"{row.nanoseconds / max(total, 1):.1%}",
                format_count(int(row.macs * 1e9 / row.nanoseconds)) if row.macs and row.nanoseconds else "",
            )
            for row in rows
        ],
    )
    echo(f"{total / 1e6:.3f} ms in {len(rows)} calls")


def _write_trace(path: Path, calls: list[CallProfile]) -> None:
    """Trace Event Format, complete events; times in microseconds."""
    events = [
        {
            "name": call.label or call.kernel,
            "cat": call.program,
            "ph": "X",
            "ts": call.start_ns / 1e3,
            "dur": call.ns / 1e3,
            "pid": 1,
            "tid": 1,
            "args": {"kernel": call.kernel, "macs": call.macs},
        }
        for call in calls
    ]
    try:
        path.write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ns"}))
    except OSError as error:
        raise UserError("E0505", f"cannot write: {error.strerror}", where=str(path)) from error
