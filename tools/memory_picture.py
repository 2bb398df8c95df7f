"""The arena over time as one self-contained SVG: a panel for every program, artifacts side by side.

x is the step of the plan, y the address. A rectangle is a buffer from the step that writes it to the last that reads
it; its colour is its role. Panels of one program share the scale of addresses, so that they compare by eye.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from edgec.tools.cli.console import format_bytes
from edgec.tools.svg import GRID, INK, MUTED, document, text

# Tableau's ten, of which neighbours differ in lightness too: legible without red and green.
COLOURS = {
    "input": "#59a14f",
    "activation": "#4e79a7",
    "saved activation": "#f28e2b",
    "computed again": "#edc948",
    "gradient": "#e15759",
    "workspace": "#bab0ac",
    "output": "#b07aa1",
    "scalar": "#76b7b2",
}
_OTHER = "#9c755f"

_PLOT_WIDTH, _PLOT_HEIGHT = 560, 300
_LEFT, _RIGHT, _ABOVE, _BELOW = 72, 28, 58, 82  # around a plot
_MARGIN, _HEADER = 20, 74
_CHARACTER = 6.7  # about the width of one at 11 px
_NAMED_AT_PEAK = 3


@dataclass(frozen=True)
class Panel:
    """One program of one artifact for one target; `plan` is its entry of the manifest."""

    artifact: str
    target: str
    program: str
    plan: Mapping[str, Any]

    @property
    def steps(self) -> Sequence[str]:
        return self.plan["steps"]

    @property
    def rows(self) -> Sequence[Mapping[str, Any]]:
        return self.plan["rows"]

    def alive(self, step: int) -> list[Mapping[str, Any]]:
        return [row for row in self.rows if row["first"] <= step <= row["last"]]

    def peak(self) -> tuple[int, int]:
        """(step, bytes) where most is alive, the first of equals."""
        totals = [sum(row["bytes"] for row in self.alive(step)) for step in range(len(self.steps))]
        return (totals.index(max(totals)), max(totals)) if totals else (0, 0)


def draw(panels: Sequence[Panel]) -> str:
    """A grid: a row for every program, a column for every artifact and target."""
    programs = sorted({panel.program for panel in panels}, key=_program_order)
    columns = list(dict.fromkeys((panel.artifact, panel.target) for panel in panels))
    cell_width, cell_height = _LEFT + _PLOT_WIDTH + _RIGHT, _ABOVE + _PLOT_HEIGHT + _BELOW
    width = 2 * _MARGIN + max(len(columns), 1) * cell_width
    height = 2 * _MARGIN + _HEADER + len(programs) * cell_height
    tallest = {name: max(p.plan["arena_bytes"] for p in panels if p.program == name) for name in programs}
    body = [*_header(panels)]
    for panel in panels:
        x = _MARGIN + columns.index((panel.artifact, panel.target)) * cell_width + _LEFT
        y = _MARGIN + _HEADER + programs.index(panel.program) * cell_height + _ABOVE
        body += [f'<g transform="translate({x},{y})">', *_draw_panel(panel, max(tallest[panel.program], 1)), "</g>"]
    return document(width, height, body)


def _program_order(name: str) -> tuple[int, str]:
    known = ("infer", "train", "eval")
    return known.index(name) if name in known else len(known), name


def _header(panels: Iterable[Panel]) -> Iterator[str]:
    present = {row["role"] for panel in panels for row in panel.rows}
    roles = [role for role in COLOURS if role in present] + sorted(present - COLOURS.keys())
    yield text(_MARGIN, _MARGIN + 20, "Memory of the arena over time", size=18, weight="600")
    yield text(_MARGIN, _MARGIN + 38, "across: steps of the plan; upward: addresses; dashed: the peak", colour=MUTED)
    x = float(_MARGIN)
    for role in roles:
        yield f'<rect x="{x:.1f}" y="{_MARGIN + 50}" width="12" height="12" rx="2" fill="{_colour(role)}"/>'
        yield text(x + 17, _MARGIN + 60, role)
        x += 17 + len(role) * 6.4 + 20


def _draw_panel(panel: Panel, tallest: int) -> Iterator[str]:
    arena = panel.plan["arena_bytes"]
    step, peak = panel.peak()
    yield text(0, -34, f"{panel.artifact}: {panel.program}", size=14, weight="600")
    yield text(0, -17, f"{panel.target}; arena {format_bytes(arena)}, {len(panel.steps)} steps", colour=MUTED)
    yield f'<rect width="{_PLOT_WIDTH}" height="{_PLOT_HEIGHT}" fill="#fafafa"/>'
    yield from _address_axis(tallest)
    if not panel.steps:
        return
    yield from _step_axis(len(panel.steps))
    across, up = _PLOT_WIDTH / len(panel.steps), _PLOT_HEIGHT / tallest
    for row in panel.rows:
        yield _buffer(row, across, up)
    yield from _guard(panel, across)
    # The top of the arena: what lies above belongs to neighbours that need more.
    y = _PLOT_HEIGHT - arena * up
    yield f'<line x1="0" x2="{_PLOT_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="{INK}" stroke-width="1"/>'
    yield from _mark_peak(panel, step, peak, across)
    for row in panel.rows:
        yield from _label(row, across, up)


def _place(row: Mapping[str, Any], across: float, up: float) -> tuple[float, float, float, float]:
    """(x, y, width, height) of a buffer."""
    height = row["bytes"] * up
    width = (row["last"] - row["first"] + 1) * across
    return row["first"] * across, _PLOT_HEIGHT - row["offset"] * up - height, width, height


def _buffer(row: Mapping[str, Any], across: float, up: float) -> str:
    x, y, width, height = _place(row, across, up)
    title = f"{row['name']}: {row['role']}, {format_bytes(row['bytes'])}, steps {row['first']} to {row['last']}"
    if row.get("kept_for"):
        title += f", kept for {row['kept_for']}"
    return (
        f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" fill="{_colour(row["role"])}" '
        f'stroke="#ffffff" stroke-width="{0.8 if min(width, height) > 3 else 0.2}"><title>{escape(title)}</title>'
        "</rect>"
    )


def _label(row: Mapping[str, Any], across: float, up: float) -> Iterator[str]:
    """A buffer's name, where it has room."""
    x, y, width, height = _place(row, across, up)
    characters = int((width - 8) / _CHARACTER)
    if height >= 13 and characters >= 5:
        ink = "#ffffff" if row["role"] not in ("workspace", "saved activation") else INK
        yield text(x + 4, y + height / 2 + 4, _shortened(row["name"], characters), colour=ink, passive=True)


def _guard(panel: Panel, across: float) -> Iterator[str]:
    guard = panel.plan.get("guard")
    if guard is None:
        return
    x = guard * across
    yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{_PLOT_HEIGHT}" stroke="{MUTED}" stroke-width="1"/>'
    before = x > _PLOT_WIDTH - 60
    yield text(x - 4 if before else x + 4, -4, "guard", colour=MUTED, anchor="end" if before else "start")


def _mark_peak(panel: Panel, step: int, peak: int, across: float) -> Iterator[str]:
    x = (step + 0.5) * across
    yield (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{_PLOT_HEIGHT + 4}" stroke="{INK}" stroke-width="1.4" '
        'stroke-dasharray="5 3"/>'
    )
    wide = int((_PLOT_WIDTH + _RIGHT) / _CHARACTER)
    named = f"peak {format_bytes(peak)} at step {step}: {panel.steps[step]}"
    yield text(0, _PLOT_HEIGHT + 40, _shortened(named, wide), weight="600")
    largest = sorted(panel.alive(step), key=lambda row: -row["bytes"])[:_NAMED_AT_PEAK]
    parts = [f"{row['name']} ({row['role']}, {format_bytes(row['bytes'])})" for row in largest]
    yield text(0, _PLOT_HEIGHT + 56, _shortened("largest there: " + ", ".join(parts), wide), colour=MUTED)


def _address_axis(tallest: int) -> Iterator[str]:
    for tick in _ticks(tallest):
        y = _PLOT_HEIGHT - tick / tallest * _PLOT_HEIGHT
        yield f'<line x1="0" x2="{_PLOT_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>'
        yield text(-8, y + 4, format_bytes(tick) if tick else "0", colour=MUTED, anchor="end")


def _step_axis(steps: int) -> Iterator[str]:
    unit = max(1, _round_unit(steps / 8))
    for step in range(0, steps, unit):
        x = (step + 0.5) / steps * _PLOT_WIDTH
        yield text(x, _PLOT_HEIGHT + 16, str(step), colour=MUTED, anchor="middle")


def _ticks(most: int) -> list[int]:
    """About five round addresses from 0 on: powers of two times 1, 2 or 4 of a unit of bytes."""
    unit = 1 << max(0, math.ceil(math.log2(max(most / 6, 1))))
    return list(range(0, most + 1, unit))


def _round_unit(least: float) -> int:
    power = 10 ** math.floor(math.log10(max(least, 1)))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)


def _colour(role: str) -> str:
    return COLOURS.get(role, _OTHER)


def _shortened(words: str, characters: int) -> str:
    return words if len(words) <= characters else words[: max(characters - 1, 0)] + "\u2026"
