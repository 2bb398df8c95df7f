"""Code of `DotSpec`: tiles of rows by columns, a vector of the depth at a time in each accumulator."""

from __future__ import annotations

from collections.abc import Sequence

from edgec.backends.base import Target
from edgec.backends.tvm._tvm import Expr, PrimFunc, T
from edgec.backends.tvm.builder import Index, Pointer, bind, build_kernel, constant, local, serial, split_width, when
from edgec.backends.tvm.dots import DotSpec
from edgec.backends.tvm.epilogue_code import Place, finish
from edgec.backends.tvm.lanes_code import fold_lanes, walk
from edgec.backends.tvm.tiling import even_split


def emit_dots(spec: DotSpec, target: Target) -> PrimFunc:
    blocks, rest = divmod(spec.columns, spec.tile_columns)
    count = blocks + bool(rest)
    share = -(-count // spec.tasks)

    def body(left: Pointer, right: Pointer, *others: Pointer | Expr) -> None:
        *pointers, lo, hi = others
        kernel = _Dots(spec, target, left, right, pointers)
        with serial(lo * share, T.min(hi * share, count)) as block:
            if blocks:
                with when(block < blocks):
                    kernel.columns(block * spec.tile_columns, spec.tile_columns)
            if rest:
                with when(block == blocks):
                    kernel.columns(blocks * spec.tile_columns, rest)

    return build_kernel(spec.arguments, body)


class _Dots:
    def __init__(self, spec: DotSpec, target: Target, left: Pointer, right: Pointer, pointers: Sequence[Pointer]):
        self.spec, self.target, self.left, self.right, self.pointers = spec, target, left, right, pointers
        self.panels, self.tail = divmod(spec.depth, spec.width)

    def columns(self, first: Index, count: int) -> None:
        """`count` columns from `first` on, for all rows."""
        height, taller, shorter = even_split(self.spec.rows, self.spec.tile_rows)
        with serial(0, taller) as i:
            self.tile(i * height, height, first, count)
        if shorter:
            with serial(0, shorter) as i:
                self.tile(taller * height + i * (height - 1), height - 1, first, count)

    def tile(self, row: Index, height: int, first: Index, count: int) -> None:
        spec, lanes = self.spec, self.target.lanes
        widths = sorted({n for width in self.widths() for _, n in split_width(width, lanes)})
        cells = [{n: local(n) for n in widths} for _ in range(height * count)]
        for by_width in cells:
            for n, cell in by_width.items():
                cell.store(0, constant(0.0, n))
        if self.panels:
            with serial(0, self.panels) as panel:
                self.panel(cells, (row, height), (first, count), panel, spec.width)
        if self.tail:
            self.panel(cells, (row, height), (first, count), self.panels, self.tail)
        for r in range(height):
            for c in range(count):
                total = fold_lanes(cells[r * count + c], lambda a, b: a + b)
                line, column = row + r, first + c
                finish(spec.epilogue, self.pointers, total, Place(line * spec.columns + column, line, column))

    def widths(self) -> list[int]:
        return ([self.spec.width] if self.panels else []) + ([self.tail] if self.tail else [])

    def panel(
        self,
        cells: Sequence[dict[int, Pointer]],
        rows: tuple[Index, int],
        columns: tuple[Index, int],
        panel: Index,
        width: int,
    ) -> None:
        """Add the products of one panel of the depth."""
        spec, (row, height), (first, count) = self.spec, rows, columns
        start = panel * (spec.width * spec.columns) + first * width

        def add(piece: Index, lanes: int) -> None:
            others = [bind(self.right.load(start + c * width + piece, lanes)) for c in range(count)]
            for r in range(height):
                own = bind(self.left.load((row + r) * spec.depth + panel * spec.width + piece, lanes))
                for c, other in enumerate(others):
                    cell = cells[r * count + c][lanes]
                    cell.store(0, cell.load(0, lanes) + own * other)

        walk(width, self.target.lanes, add)
