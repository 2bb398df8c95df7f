"""`edgec memory`."""

from __future__ import annotations

from pathlib import Path

import click

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
    rows = [
        (path, variant, name, program)
        for path in artifacts
        for variant in read_artifact(path).manifest.get("variants", [])
        for name, program in variant["programs"].items()
    ]
    if picture is not None:
        svg = draw([Panel(path.name, variant["target"], name, program) for path, variant, name, program in rows])
        with whole_file(picture) as file:
            file.write(svg.encode())
        echo(f"{picture}: {len(rows)} programs", err=True)
    if as_json:
        show_json({"programs": [_record(*row) for row in rows]})
        return
    _show_side_by_side(rows)
    for path, variant, name, program in rows:
        _show_peak(f"{path.name} {variant['target']} {name}", program)


def _show_side_by_side(rows: list[tuple[Path, dict, str, dict]]) -> None:
    """A column for every program, a row for every kind of memory."""
    columns = []
    for _, variant, _, program in rows:
        figures = {"arena": program["arena_bytes"]}
        figures |= {f"  {role}, at the peak": count for role, count in sorted(_peak(program)[1].items())}
        figures |= {name: variant[f"{name}_bytes"] for name in ("trained", "state", "mapped")}
        columns.append(figures)
    labels = sorted({label for column in columns for label in column}, key=_label_order)
    header = ("", *(f"{path.stem} {variant['target']} {name}" for path, variant, name, _ in rows))
    show_table(header, [(label, *(format_bytes(column.get(label, 0)) for column in columns)) for label in labels])


def _label_order(label: str) -> tuple[int, str]:
    return ("arena", " ", "trained", "state", "mapped").index(label if label[0] != " " else " "), label


def _peak(program: dict) -> tuple[int, dict[str, int]]:
    """The step at which most bytes are alive, the first of equals, and the bytes alive there by role."""
    steps = range(len(program["steps"]))
    alive = [sum(row["bytes"] for row in _alive(program, step)) for step in steps]
    peak = max(steps, key=alive.__getitem__, default=0)
    by_role: dict[str, int] = {}
    for row in _alive(program, peak):
        by_role[row["role"]] = by_role.get(row["role"], 0) + row["bytes"]
    return peak, by_role


def _alive(program: dict, step: int) -> list[dict]:
    return [row for row in program["rows"] if row["first"] <= step <= row["last"]]


def _record(path: Path, variant: dict, name: str, program: dict) -> dict:
    step, by_role = _peak(program)
    return {
        "artifact": str(path),
        "target": variant["target"],
        "program": name,
        "arena_bytes": program["arena_bytes"],
        "trained_bytes": variant["trained_bytes"],
        "state_bytes": variant["state_bytes"],
        "mapped_bytes": variant["mapped_bytes"],
        "peak": {"step": step, "name": program["steps"][step] if program["steps"] else "", "bytes_by_role": by_role},
        "rows": program["rows"],
    }


def _show_peak(title: str, program: dict) -> None:
    if not program["steps"]:
        return
    step, by_role = _peak(program)
    rows = sorted(_alive(program, step), key=lambda row: -row["bytes"])
    echo("")
    echo(f"{title}: the peak, {format_bytes(sum(by_role.values()))}, is at step {step}: {program['steps'][step]}")
    show_table(
        ("alive there", "role", "bytes"),
        [(row["name"], row["role"], format_bytes(row["bytes"])) for row in rows[:_SHOWN_AT_PEAK]],
    )
    if len(rows) > _SHOWN_AT_PEAK:
        echo(f"and {len(rows) - _SHOWN_AT_PEAK} smaller ones")
