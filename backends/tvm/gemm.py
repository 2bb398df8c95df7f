"""Specs of the GEMM kernels: what a product reads and writes, how it is tiled, and how its work is cut into tasks.

Both kernels see convolutions as matrices without building them (implicit GEMM). `Patches` is the left matrix: a
row is an output position (image, y, x), a column of it is a depth (tap row, tap column, channel), and the element
lies at the sum of count times stride over both. A plain matrix is the case with one image, one row and one tap.

Nothing here loads tvm; the code is in `gemm_code.py` and `gemm_reduce_code.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgec.backends.base import Argument
from edgec.backends.tvm.epilogue import Epilogue
from edgec.backends.tvm.tails import Tail
from edgec.graph.types import DType
from edgec.runtime.abi import Access


@dataclass(frozen=True)
class Axis:
    """`count` positions, `stride` elements apart."""

    count: int
    stride: int = 0


UNIT = Axis(1)


@dataclass(frozen=True)
class Patches:
    """The left matrix of a product: rows (image, y, x) by depth (tap row, tap column, channel), at `elements` of
    memory.
    """

    elements: int
    rows: tuple[Axis, Axis, Axis]
    depth: tuple[Axis, Axis, Axis]
    start: int = 0  # offset of the first element
    batch_stride: int = 0

    @staticmethod
    def matrix(rows: int, depth: int, *, transposed: bool = False, batch: int = 1, batch_stride: int = 0) -> Patches:
        """A row-major [rows, depth] matrix, or [depth, rows] if transposed; `batch` of them `batch_stride` apart."""
        strides = (1, rows) if transposed else (depth, 1)
        elements = rows * depth + (batch - 1) * batch_stride
        return Patches(
            elements, (UNIT, UNIT, Axis(rows, strides[0])), (UNIT, UNIT, Axis(depth, strides[1])), 0, batch_stride
        )

    @property
    def row_count(self) -> int:
        return math.prod(axis.count for axis in self.rows)

    @property
    def depth_count(self) -> int:
        return math.prod(axis.count for axis in self.depth)

    @property
    def lines(self) -> int:
        """Number of (image, y) pairs: rows of one line are evenly spaced."""
        return self.rows[0].count * self.rows[1].count


@dataclass(frozen=True)
class Panels:
    """The right matrix [depth, columns] in panels of `width` columns; of `groups` matrices, each panel holds all."""

    depth: int
    columns: int
    width: int
    groups: int = 1

    @property
    def elements(self) -> int:
        return self.depth * self.columns * self.groups


@dataclass(frozen=True)
class Table:
    """The right matrix [depth, columns] row-major in rows of `row_stride`; `width` is still the tile's. A batch of
    them.
    """

    depth: int
    columns: int
    width: int
    row_stride: int
    elements: int
    batch_stride: int = 0


@dataclass(frozen=True)
class Placement:
    """Where results stand, in rows of the output's matrix view, which has `columns` columns.

    Row of (batch, image, y, x): start + the sum of each index times its stride. Column: batch * batch_columns +
    own column.
    """

    columns: int
    strides: tuple[int, int, int]
    start: int = 0
    batch_rows: int = 0
    batch_columns: int = 0


@dataclass(frozen=True)
class GemmSpec:
    """output[row, column] = epilogue(sum over depth of left[row, depth] * right[depth, column]).

    A register tile has at most `tile_rows` rows, `tail_rows` in the last panel if that is narrower. Arguments:
    left, right, those of the epilogue and of the tail, whose blocks are the row blocks. Tasks: batch * row_blocks *
    panel_groups.
    """

    role: str
    left: Patches
    right: Panels | Table
    output: Placement
    epilogue: Epilogue
    tile_rows: int
    tail_rows: int
    row_blocks: int
    panel_groups: int
    batch: int = 1
    tail: Tail | None = None

    @property
    def stem(self) -> str:
        return f"f32_{self.role}{self.epilogue.label}{self.tail.label if self.tail else ''}"

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return (
            Argument(DType.F32, self.left.elements, Access.READ),
            Argument(DType.F32, self.right.elements, Access.READ),
            *self.epilogue.arguments,
            *(self.tail.arguments if self.tail else ()),
        )

    @property
    def tasks(self) -> int:
        return self.batch * self.row_blocks * self.panel_groups


@dataclass(frozen=True)
class GemmReduceSpec:
    """output[depth, column] = epilogue(sum over rows of left[row, depth] * right[row, column]): a weight's gradient.

    The right matrix has the rows of `left`, `right_strides` elements apart along (image, y, x). The output is in
    panels of `width`, or row-major when width equals `columns`. Rows are added in blocks of fixed size; sums
    between blocks stand in `partial` (an argument after the epilogue's, absent if one block does, or if the
    epilogue stores sums and nothing else). Arguments: left, right, those of the epilogue, partial. Tasks:
    depth_groups * panel_groups.
    """

    role: str
    left: Patches
    columns: int
    width: int
    right_elements: int
    right_strides: tuple[int, int, int]
    epilogue: Epilogue
    tile_rows: int
    tail_rows: int
    row_block: int  # rows added in registers before sums go to memory: of x when there is one line, else lines
    depth_groups: int
    panel_groups: int
    row_major: bool = False

    @property
    def stem(self) -> str:
        return f"f32_{self.role}{self.epilogue.label}"

    @property
    def blocks(self) -> int:
        count = self.left.lines if self.left.lines > 1 else self.left.rows[2].count
        return -(-count // self.row_block)

    @property
    def needs_partial(self) -> bool:
        return self.blocks > 1 and bool(self.epilogue.steps)

    @property
    def arguments(self) -> tuple[Argument, ...]:
        elements = self.left.depth_count * self.columns
        partial = (Argument(DType.F32, elements, Access.READ_WRITE),) if self.needs_partial else ()
        return (
            Argument(DType.F32, self.left.elements, Access.READ),
            Argument(DType.F32, self.right_elements, Access.READ),
            *self.epilogue.arguments,
            *partial,
        )

    @property
    def tasks(self) -> int:
        return self.depth_groups * self.panel_groups
