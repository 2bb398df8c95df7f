"""`edgec memory`."""

from __future__ import annotations

from pathlib import Path

import click

from edgec.compiler.memory.report import MemoryReport, memory_reports
from edgec.runtime.layout import read_artifact
from edgec.tools.cli.arrays import whole_file
from edgec.tools.cli.console import echo, format_bytes, show_json, show_table
from edgec.tools.cli.options import JSON
from edgec.tools.memory_picture import Panel, draw

_SHOWN_AT_PEAK = 10


@click.command("memory")
@click.argument("artifacts", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--picture", type=click.Path(dir_okay=False, path_type=Path), help="Draw the arena over time, side by side (.svg)."
)
@JSON
def command(artifacts: tuple[Path, ...], picture: Path | None, as_json: bool) -> None:
    """Show where the memory of ARTIFACTS goes: bytes by role, and what is alive at the peak of every program.

    Example: edgec memory full.edge head.edge --picture memory.svg
    """
    found = [(path, report) for path in artifacts for report in memory_reports(read_artifact(path).manifest)]
    if picture is not None:
        svg = draw([Panel(path.name, report.target, report.program, report.plan) for path, report in found])
        with whole_file(picture) as file:
            file.write(svg.encode())
        echo(f"{picture}: {len(found)} programs", err=True)
    if as_json:
        show_json({"programs": [_record(path, report) for path, report in found]})
        return
    _show_side_by_side(found)
    for path, report in found:
        _show_peak(path, report)


def _show_side_by_side(found: list[tuple[Path, MemoryReport]]) -> None:
    """A column for every program, a row for every kind of memory."""
    columns = []
    for _, report in found:
        figures = {"arena": report.arena_bytes}
        figures |= {f"  {role}, at the peak": count for role, count in sorted(report.by_role.items())}
        figures |= {"trained": report.trained_bytes, "state": report.state_bytes, "mapped": report.mapped_bytes}
        if report.held_bytes:
            figures["state, of it held gradients"] = report.held_bytes
        columns.append(figures)
    labels = sorted({label for column in columns for label in column}, key=_label_order)
    header = ("", *(f"{path.stem} {report.target} {report.program}" for path, report in found))
    show_table(header, [(label, *(format_bytes(column.get(label, 0)) for column in columns)) for label in labels])


def _label_order(label: str) -> tuple[int, str]:
    kinds = ("arena", " ", "trained", "state", "state, of it held gradients", "mapped")
    return kinds.index(label if label[0] != " " else " "), label


def _record(path: Path, report: MemoryReport) -> dict:
    return {
        "artifact": str(path),
        "target": report.target,
        "program": report.program,
        "arena_bytes": report.arena_bytes,
        "trained_bytes": report.trained_bytes,
        "state_bytes": report.state_bytes,
        "held_bytes": report.held_bytes,
        "mapped_bytes": report.mapped_bytes,
        "peak": {
            "step": report.peak_step,
            "name": report.peak_label,
            "bytes_by_role": report.by_role,
            "bytes_by_reason": report.by_reason,
        },
        "rows": report.plan["rows"],
    }


def _show_peak(path: Path, report: MemoryReport) -> None:
    if not report.plan["steps"]:
        return
    title = f"{path.name} {report.target} {report.program}"
    total = format_bytes(sum(report.by_role.values()))
    echo("")
    echo(f"{title}: the peak, {total}, is at step {report.peak_step}: {report.peak_label}")
    shown = report.alive[:_SHOWN_AT_PEAK]
    show_table(
        ("alive there", "role", "bytes"),
        [(buffer.name, buffer.role, format_bytes(buffer.bytes)) for buffer in shown],
    )
    if len(report.alive) > len(shown):
        echo(f"and {len(report.alive) - len(shown)} smaller ones")
    if report.by_reason:
        reasons = list(report.by_reason.items())
        show_table(
            ("kept there for the backward part, read by", "bytes"),
            [(reason, format_bytes(count)) for reason, count in reasons[:_SHOWN_AT_PEAK]],
        )
