"""`edgec memory`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from edgec.compiler.memory.report import MemoryReport, memory_reports
from edgec.runtime.layout import read_manifest
from edgec.tools.cli.arrays import whole_file
from edgec.tools.cli.console import echo, format_bytes, format_count, show_json, show_table
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

    Of several with a training step it compares what that takes, one update scheme with another.

    Example: edgec memory full.edge scheme.edge --picture memory.svg
    """
    manifests = {path: read_manifest(path) for path in artifacts}
    found = [(path, report) for path in artifacts for report in memory_reports(manifests[path])]
    steps = [_Step.of(path, manifests[path], report) for path, report in found if report.program == "train"]
    if picture is not None:
        svg = draw([Panel(path.name, report.target, report.program, report.plan) for path, report in found])
        with whole_file(picture) as file:
            file.write(svg.encode())
        echo(f"{picture}: {len(found)} programs", err=True)
    if as_json:
        programs = [_record(path, report) for path, report in found]
        show_json({"programs": programs, "training": [step.to_json() for step in steps]})
        return
    _show_side_by_side(found)
    if len(steps) > 1:
        _show_training(steps)
    for path, report in found:
        _show_peak(path, report)


@dataclass(frozen=True)
class _Step:
    """What the training step of one artifact takes; `saved_activation_bytes` are a part of the arena."""

    artifact: Path
    target: str
    update: str | Mapping[str, Any]
    macs: int
    arena_bytes: int
    saved_activation_bytes: int
    trained_bytes: int
    state_bytes: int

    @staticmethod
    def of(path: Path, manifest: Mapping[str, Any], report: MemoryReport) -> _Step:
        figures, update = manifest["programs"]["train"], manifest["train"]["update"]
        saved, macs = figures["saved_activation_bytes"], figures["macs"]
        sizes = (report.arena_bytes, saved, report.trained_bytes, report.state_bytes)
        return _Step(path, report.target, update, macs, *sizes)

    @property
    def total_bytes(self) -> int:
        """What a memory budget counts."""
        return self.arena_bytes + self.trained_bytes + self.state_bytes

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {"artifact": str(self.artifact), "total_bytes": self.total_bytes}


def _show_training(steps: list[_Step]) -> None:
    """A row for every artifact; the last columns say how many times less than the first each takes."""
    first = steps[0]
    header = ("training step", "update", "arena", "saved in it", "trained", "state", "sum", "MACs", "sum, x", "MACs, x")
    rows = []
    for step in steps:
        sizes = (step.arena_bytes, step.saved_activation_bytes, step.trained_bytes, step.state_bytes, step.total_bytes)
        less = (first.total_bytes / step.total_bytes, first.macs / max(step.macs, 1))
        name = f"{step.artifact.stem} {step.target}"
        figures = (*map(format_bytes, sizes), format_count(step.macs), *(f"{factor:.2f}" for factor in less))
        rows.append((name, _described(step.update), *figures))
    echo("")
    show_table(header, rows)


def _described(update: str | Mapping[str, Any]) -> str:
    """A preset's name, or in a few words what a scheme says."""
    if isinstance(update, str):
        return update
    words = [update["base"]]
    words += [f"{key}: {update[key]}" for key in ("biases", "norms") if update[key]]
    if trained := [rule for rule in update["weights"] if rule["ratio"]]:
        words.append(f"weights: {len(trained)}")
    if update["lora"]:
        words.append(f"lora: r={update['lora']['rank']}")
    return ", ".join(words)


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
