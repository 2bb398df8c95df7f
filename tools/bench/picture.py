"""The table as one self-contained SVG: for every row a point where our time stands to that of the fastest peer.

The scale is logarithmic, so that twice as fast lies as far from 1 as twice as slow. A row's bar is the line that its
point must not be right of; the pale stretch left of it ends at its goal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from edgec.tools.bench.measure import Result
from edgec.tools.svg import GRID, INK, MUTED, document, text

_NAMES, _PLOT, _FIGURES = 440, 420, 250
_MARGIN, _HEADER, _LINE = 20, 78, 24
_LEAST, _MOST = 1 / 16, 4.0
_TICKS = (0.1, 0.25, 0.5, 1, 2, 4)
_MET, _MISSED, _FREE, _PALE = "#4e79a7", "#e15759", "#bab0ac", "#dbe7f3"


def draw(results: Sequence[Result]) -> str:
    """A line for every row that has a ratio."""
    shown = [result for result in results if result.ratio() is not None]
    width = 2 * _MARGIN + _NAMES + _PLOT + _FIGURES
    height = 2 * _MARGIN + _HEADER + _LINE * len(shown)
    body = [*_header(_LINE * len(shown))]
    for index, result in enumerate(shown):
        body += [f'<g transform="translate({_MARGIN},{_MARGIN + _HEADER + _LINE * index})">', *_line(result), "</g>"]
    return document(width, height, body)


def _header(plot: int) -> Iterator[str]:
    yield text(_MARGIN, _MARGIN + 20, "Our time by the fastest peer's", size=18, weight="600")
    said = "left of 1 is faster; a mark is what a row must meet, the pale stretch ends at its goal"
    yield text(_MARGIN, _MARGIN + 38, said, colour=MUTED)
    for tick in _TICKS:
        x, top = _MARGIN + _across(tick), _MARGIN + _HEADER
        colour = INK if tick == 1 else GRID
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top - 6}" y2="{top + plot}" stroke="{colour}"/>'
        yield text(x, top - 12, f"{tick:g}", colour=MUTED, anchor="middle")


def _line(result: Result) -> Iterator[str]:
    row, ratio, middle = result.row, result.ratio(), _LINE / 2
    yield text(0, middle + 4, row.name)
    if row.bar is not None:
        bar, goal = _across(row.bar), _across(row.goal or row.bar)
        yield f'<rect x="{goal:.1f}" y="3" width="{bar - goal:.1f}" height="{_LINE - 6}" fill="{_PALE}"/>'
        yield f'<line x1="{bar:.1f}" x2="{bar:.1f}" y1="3" y2="{_LINE - 3}" stroke="{MUTED}" stroke-width="2"/>'
    colour = _FREE if row.bar is None else _MET if ratio <= row.bar else _MISSED
    said = f"{row.name}: {result.ours.median_ms:.3f} ms, {ratio:.2f} of {result.fastest()}"
    title = f"<title>{escape(said)}</title>"
    yield f'<circle cx="{_across(ratio):.1f}" cy="{middle}" r="5" fill="{colour}">{title}</circle>'
    figures = f"{ratio:.2f} of {result.fastest()}, {result.share():.0%} of the peak"
    yield text(_NAMES + _PLOT + 16, middle + 4, figures, colour=MUTED)


def _across(ratio: float) -> float:
    bounded = min(max(ratio, _LEAST), _MOST)
    return _NAMES + _PLOT * math.log(bounded / _LEAST) / math.log(_MOST / _LEAST)
