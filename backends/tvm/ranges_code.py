"""Ranges of items for a task, constant where the cut is trivial."""

from __future__ import annotations

from edgec.backends.tvm._tvm import T
from edgec.backends.tvm.builder import Index
from edgec.backends.tvm.row_blocks import RowBlocks


def share(total: int, parts: int, part: Index) -> tuple[Index, Index]:
    """The range of `total` items that belongs to `part` of `parts`; constant where the cut is trivial."""
    if parts == 1:
        return 0, total
    if parts == total:
        return part, part + 1
    # The first parts take one more each. No division by `parts`: TVM's simplifier overflows int32 on such bounds.
    whole, left = divmod(total, parts)
    if left == 0:
        return part * whole, (part + 1) * whole
    return part * whole + least(part, left), (part + 1) * whole + least(part + 1, left)


def rows_of(blocks: RowBlocks, block: Index) -> tuple[Index, Index]:
    """The range of rows of a block."""
    first, last = share(blocks.units, blocks.count, block)

    def row(unit: Index) -> Index:
        return unit * blocks.unit_rows + (least(unit, blocks.longer) if blocks.longer else 0)

    return row(first), row(last)


def least(a: Index, b: Index) -> Index:
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else T.min(a, b)


def greatest(a: Index, b: Index) -> Index:
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else T.max(a, b)
