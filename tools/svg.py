"""What the pictures share: a document that stands alone, its colours, and text."""

from __future__ import annotations

from collections.abc import Iterable
from xml.sax.saxutils import escape, quoteattr

INK, MUTED, GRID = "#1f2430", "#6b7280", "#e5e7eb"


def document(width: int, height: int, body: Iterable[str]) -> str:
    """The text of an SVG file in 11 px type on white."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            'font-family="Inter, Segoe UI, Helvetica, Arial, DejaVu Sans, sans-serif" font-size="11">',
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *body,
            "</svg>\n",
        ]
    )


def text(
    x: float,
    y: float,
    words: str,
    *,
    size: int = 11,
    weight: str = "400",
    colour: str = INK,
    anchor: str = "start",
    passive: bool = False,
) -> str:
    """`passive` lets the pointer through, to the tooltip of the rectangle behind."""
    more = ' pointer-events="none"' if passive else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" fill="{colour}" '
        f"text-anchor={quoteattr(anchor)}{more}>{escape(words)}</text>"
    )
