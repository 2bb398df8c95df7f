"""Code of `GemmReduceSpec`: the gradient of a weight, left^T times right, reduced over rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgec.backends.base import Target
from edgec.backends.tvm._tvm import Expr, PrimFunc
from edgec.backends.tvm.builder import (
    LINE,
    Index,
    Pointer,
    bind,
    broadcast,
    build_kernel,
    choose,
    constant,
    element,
    local,
    prefetch,
    serial,
    split_width,
    when,
)
from edgec.backends.tvm.epilogue_code import Place, each_row, finish
from edgec.backends.tvm.gemm import GemmReduceSpec
from edgec.backends.tvm.gemm_code import FAR, greatest, least, share
from edgec.backends.tvm.tiling import even_split, multiplies_by_element


def emit_gemm_reduce(spec: GemmReduceSpec, target: Target) -> PrimFunc:
    return build_kernel(
        spec.arguments, lambda left, right, *rest: Reduce(spec, target, left, right, rest[:-2]).run(*rest[-2:])
    )


class Reduce:
    def __init__(self, spec: GemmReduceSpec, target: Target, left: Pointer, right: Pointer, rest: Sequence[Pointer]):
        self.spec, self.target, self.left, self.right = spec, target, left, right
        count = len(spec.epilogue.arguments)
        self.rest = rest[:count]
        # Sums between row blocks: in their own buffer, or where they are to be stored.
        self.partial = rest[count] if spec.needs_partial else rest[spec.epilogue.stores[0].argument]
        self.panels, self.tail = divmod(spec.columns, spec.width)
        self.lines = spec.left.lines > 1
        self.taps = spec.left.depth[0].count * spec.left.depth[1].count > 1
        self.far = sum(argument.elements for argument in spec.arguments) >= FAR

    def run(self, lo: Expr, hi: Expr) -> None:
        spec = self.spec
        total = spec.left.lines if self.lines else spec.left.rows[2].count
        # A block meets the tiles of all tasks while it is near.
        with serial(0, spec.blocks) as block, serial(lo, hi) as task:
            start = block * spec.row_block
            count = least(total - start, spec.row_block)
            self.block(task % spec.depth_groups, task // spec.depth_groups, start, count, is_edge(block, spec.blocks))

    def block(self, group: Index, panel_group: Index, start: Index, count: Index, edge: Edge) -> None:
        """Add `count` rows from `start` on to all tiles of a task."""
        spec = self.spec
        panels = self.panels + bool(self.tail)
        begin, end = share(panels, spec.panel_groups, panel_group)
        if self.panels:
            with serial(begin, least(end, self.panels)) as panel:
                self.panel(group, panel, spec.width, spec.tile_rows, start, count, edge)
        if self.tail:
            with when(end == panels):
                self.panel(group, self.panels, self.tail, spec.tail_rows, start, count, edge)

    def panel(
        self, group: Index, panel: Index, width: int, largest: int, start: Index, count: Index, edge: Edge
    ) -> None:
        outer, middle, inner = self.spec.left.depth

        def tiles(i: Index, j: Index, height: int, begin: Index, end: Index, base: int) -> None:
            with serial(begin, end) as t:
                self.tile(i, j, base + t * height, height, panel, width, start, count, edge)

        height, taller, shorter = even_split(inner.count, largest)
        if outer.count * middle.count == 1:
            begin, end = share(taller + shorter, self.spec.depth_groups, group)
            tiles(0, 0, height, begin, least(end, taller), 0)
            if shorter:
                # Shorter tiles count from `taller` on, so the first of them starts at taller * height.
                tiles(0, 0, height - 1, greatest(begin, taller), end, taller)
            return
        with serial(*share(outer.count * middle.count, self.spec.depth_groups, group)) as tap:
            i, j = tap // middle.count, tap % middle.count
            tiles(i, j, height, 0, taller, 0)
            if shorter:
                tiles(i, j, height - 1, 0, shorter, taller * height)

    def tile(
        self,
        i: Index,
        j: Index,
        k: Index,
        height: int,
        panel: Index,
        width: int,
        start: Index,
        count: Index,
        edge: Edge,
    ) -> None:
        """`height` depths from `k` on of tap (i, j), by one panel, over a block of rows."""
        spec, vectors = self.spec, split_width(width, self.target.lanes)
        outer, middle, inner = spec.left.depth
        images, ys, xs = spec.left.rows
        strides = spec.right_strides
        depth = (i * middle.count + j) * inner.count + k
        sums = local(height * width)

        def each_of(row: Index, visit: Callable[[Index, int, int, Index], None]) -> None:
            """Visit (row, column, lanes, offset in the output) of every vector of a row of the tile."""
            for column, lanes in vectors:
                if spec.row_major:
                    offset = (depth + row) * spec.columns + panel * spec.width + column
                else:
                    offset = panel * (spec.width * spec.left.depth_count) + (depth + row) * width + column
                visit(row, column, lanes, offset)

        def each(visit: Callable[[int, int, int, Index], None]) -> None:
            for row in range(height):
                each_of(row, visit)

        def clear(row: int, column: int, lanes: int, offset: Index) -> None:
            sums.store(row * width + column, constant(0.0, lanes))

        def resume(row: int, column: int, lanes: int, offset: Index) -> None:
            sums.store(row * width + column, self.partial.load(offset, lanes))

        choose(edge.first, lambda: each(clear), lambda: each(resume))
        if self.far and spec.epilogue.read_in_full:
            with when(edge.last), serial(0, height) as row:
                each_of(row, self.ask_for_operands)
        ahead = self.ahead(k, height, panel, start + count) if self.far and not self.taps else None

        def add(image: Index, y: Index, x: Index) -> None:
            left = spec.left.start + image * images.stride + y * ys.stride + x * xs.stride
            left = left + i * outer.stride + j * middle.stride + k * inner.stride
            right = image * strides[0] + y * strides[1] + x * strides[2] + panel * spec.width
            if ahead:
                prefetch(self.left, left + ahead[0])
                for column in range(0, width, LINE):
                    prefetch(self.right, right + ahead[1] + column)
            for row, scale in enumerate(self.scales(left, height, inner.stride)):
                for column, lanes in vectors:
                    at = row * width + column
                    product = broadcast(scale, lanes) * self.right.load(right + column, lanes)
                    sums.store(at, sums.load(at, lanes) + product)

        if self.lines:
            with serial(0, count) as n, serial(0, xs.count) as x:
                line = start + n
                add(line // ys.count, line % ys.count, x)
        else:
            with serial(0, count) as n:
                add(0, 0, start + n)

        def end(row: Index, results: Pointer) -> None:
            def store(row: Index, column: int, lanes: int, offset: Index) -> None:
                place = Place(offset, depth + row, panel * spec.width + column)
                finish(spec.epilogue, self.rest, results.load(row * width + column, lanes), place)

            each_of(row, store)

        def suspend(row: int, column: int, lanes: int, offset: Index) -> None:
            self.partial.store(offset, sums.load(row * width + column, lanes))

        # What is stored and nothing more may be stored after every block.
        choose(
            edge.last if spec.epilogue.steps else True,
            lambda: each_row(spec.epilogue, sums, height, vectors, end),
            lambda: each(suspend),
        )

    def ask_for_operands(self, row: Index, column: int, lanes: int, offset: Index) -> None:
        """What the epilogue reads was last touched a step ago."""
        for argument in self.spec.epilogue.read_in_full if column % LINE == 0 else ():
            prefetch(self.rest[argument], offset)

    def ahead(self, k: Index, height: int, panel: Index, end: Index) -> tuple[Index, Index]:
        """How far behind what a tile reads of a row of the left and of the right matrix lies what the next tile reads.

        Rows are far apart, so that processors do not foresee which lines a tile reads. One line of the left row is
        enough: each holds the last element of some tile. The last tile of a panel is followed by the first of the next
        panel, or of the next block, if there is one: it begins with row `end`.
        """
        spec, rows = self.spec, self.spec.left.rows[2]
        depth, panels = spec.left.depth[2].count, self.panels + bool(self.tail)
        # 0 or 1 by division: LLVM writes a loop twice whose addresses depend on a comparison.
        last_tile, last_panel = (k + height) // depth, (panel + 1) // panels
        block = last_panel * (1 - end // rows.count) * spec.row_block
        left = 2 * height - 1 + last_tile * (block * rows.stride - k - height)
        right = last_tile * (block * spec.right_strides[2] + spec.width - last_panel * (panels * spec.width))
        return left, right

    def scales(self, offset: Index, height: int, stride: int) -> list[Expr]:
        """The elements of the left matrix that a tile multiplies with one row of the right one."""
        if not (multiplies_by_element(self.target) and stride == 1):
            return [self.left.load(offset + row * stride) for row in range(height)]
        scales = []
        for start, lanes in split_width(height, self.target.lanes):
            vector = bind(self.left.load(offset + start, lanes))
            scales += [element(vector, lane) for lane in range(lanes)] if lanes > 1 else [vector]
        return scales


@dataclass(frozen=True)
class Edge:
    """Whether a block is the first, which starts from 0, and the last, after which the epilogue runs."""

    first: Expr | bool
    last: Expr | bool


def is_edge(block: Index, blocks: int) -> Edge:
    return Edge(True, True) if blocks == 1 else Edge(block == 0, block == blocks - 1)
