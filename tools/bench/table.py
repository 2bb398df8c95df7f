"""Tables of benchmarks: Markdown, a line as soon as its figures are known."""

from __future__ import annotations

from collections.abc import Sequence

_NARROWEST = 8


class Table:
    """Columns are titles, each with the format of its cells: `,.0f`, `.1%`; for words their width, `24`."""

    def __init__(self, *columns: tuple[str, str]):
        self._columns = columns

    def head(self) -> str:
        return f"{self._line([title for title, _ in self._columns])}\n{'|---' * len(self._columns)}|"

    def row(self, *cells: object) -> str:
        """A cell for each title; None leaves it empty."""
        pairs = zip(cells, self._columns, strict=True)
        return self._line(["" if cell is None else format(cell, form) for cell, (_, form) in pairs])

    def _line(self, words: Sequence[str]) -> str:
        cells = [
            word.ljust(int(form)) if form.isdigit() else word.rjust(max(len(title), _NARROWEST))
            for word, (title, form) in zip(words, self._columns, strict=True)
        ]
        return f"| {' | '.join(cells)} |"
