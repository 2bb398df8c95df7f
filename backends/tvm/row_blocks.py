"""Rows of a matrix cut into blocks, as a kernel's tasks take them. Loads no tvm."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RowBlocks:
    """`units` of `unit_rows` rows each, of which the first `longer` have one more, shared out among `count` blocks
    (`ranges_code.share`).
    """

    units: int
    count: int
    unit_rows: int
    longer: int = 0

    @staticmethod
    def of_most(rows: int, most: int) -> RowBlocks:
        """The fewest blocks of at most `most` rows, as even as can be."""
        count = -(-rows // most)
        return RowBlocks(count, count, *divmod(rows, count))

    @property
    def rows(self) -> int:
        return self.units * self.unit_rows + self.longer

    @property
    def block_rows(self) -> int:
        """Rows of every block; 0 where they differ."""
        return 0 if self.longer or self.units % self.count else self.rows // self.count

    @property
    def most_rows(self) -> int:
        """No block has more."""
        return -(-self.units // self.count) * (self.unit_rows + bool(self.longer))
