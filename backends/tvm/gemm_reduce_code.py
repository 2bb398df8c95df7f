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
    constant,
    element,
    local,
    masked,
    opaque,
    opaque_zero,
    prefetch,
    serial,
    split_width,
    when,
)
from edgec.backends.tvm.epilogue_code import Place, finish
from edgec.backends.tvm.gemm import GemmReduceSpec
from edgec.backends.tvm.gemm_code import FAR
from edgec.backends.tvm.ranges_code import greatest, least, share
from edgec.backends.tvm.tiling import even_split, multiplies_by_element

_FEW_ROWS = 64  # take no longer than their epilogue, which is written out then
Visit = Callable[[Index, int, int, Index], None]  # of row, column, lanes and offset in the output


def emit_gemm_reduce(spec: GemmReduceSpec, target: Target) -> PrimFunc:
    return build_kernel(
        spec.arguments,
        lambda left, right, *rest: Reduce(spec, target, left, right, rest[:-2], rest[-2]).run(*rest[-2:]),
    )


class Reduce:
    def __init__(
        self, spec: GemmReduceSpec, target: Target, left: Pointer, right: Pointer, rest: Sequence[Pointer], lo: Expr
    ):
        self.spec, self.target, self.left, self.right, self.lo = spec, target, left, right, lo
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
            self.block(task % spec.depth_groups, task // spec.depth_groups, start, count, edge_of(block, spec.blocks))

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
        # Of the tile's own corner in each matrix, LLVM need not know how it follows from counters of loops.
        left_corner = spec.left.start + i * outer.stride + j * middle.stride + k * inner.stride
        left_corner = opaque(left_corner, self.lo)
        right_corner = opaque(panel * spec.width, self.lo)
        pitch = spec.columns if spec.row_major else width
        panel_start = panel * (spec.width * (1 if spec.row_major else spec.left.depth_count))
        corner = opaque(panel_start + depth * pitch, self.lo)
        sums = local(height * width)

        def each_of(row: Index, visit: Visit) -> None:
            for column, lanes in vectors:
                visit(row, column, lanes, corner + row * pitch + column)

        def each(visit: Visit) -> None:
            for row in range(height):
                each_of(row, visit)

        def each_in_turn(visit: Visit) -> None:
            """In a loop: what runs in one of the blocks need not be written out for every row."""
            with serial(0, height + opaque_zero(self.lo)) as row:
                each_of(row, visit)

        def clear(row: Index, column: int, lanes: int, offset: Index) -> None:
            sums.store(row * width + column, constant(0.0, lanes))

        def resume(row: Index, column: int, lanes: int, offset: Index) -> None:
            before = self.partial.load(offset, lanes)
            sums.store(row * width + column, before if edge.earlier is True else masked(before, edge.earlier))

        each(resume if edge.earlier is not False else clear)
        if self.far and spec.epilogue.read_in_full:
            with when(edge.last):
                each_in_turn(self.ask_for_operands)
        ahead = self.ahead(k, height, panel, start + count) if self.far and not self.taps else None

        def add(image: Index, y: Index, x: Index) -> None:
            left = left_corner + image * images.stride + y * ys.stride + x * xs.stride
            right = right_corner + image * strides[0] + y * strides[1] + x * strides[2]
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

        def total(row: Index, column: int, lanes: int) -> Expr:
            return sums.load(row * width + column, lanes)

        def end(row: Index, column: int, offset: Index, result: Expr) -> None:
            finish(spec.epilogue, self.rest, result, Place(offset, depth + row, panel * spec.width + column))

        few = spec.left.row_count <= _FEW_ROWS and not spec.epilogue.is_long
        if not spec.epilogue.steps or (edge.last is True and few):
            # What is stored and nothing more may be stored after every block.
            each(lambda row, column, lanes, offset: end(row, column, offset, total(row, column, lanes)))
        elif edge.last is True:
            # Sums stay in registers only while all their indices are constants.
            waiting = local(height * width)
            each(lambda row, column, lanes, _: waiting.store(row * width + column, total(row, column, lanes)))
            each_in_turn(
                lambda row, column, lanes, offset: end(row, column, offset, waiting.load(row * width + column, lanes))
            )
        else:
            each(lambda row, column, lanes, offset: self.partial.store(offset, total(row, column, lanes)))
            with when(edge.last):
                each_in_turn(
                    lambda row, column, lanes, offset: end(row, column, offset, self.partial.load(offset, lanes))
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
    """Where a block stands: whether blocks `earlier` left sums to go on with, as an i32 mask where it is known only
    then, and whether it is the `last`, after which the epilogue runs.
    """

    earlier: Expr | bool
    last: Expr | bool


def edge_of(block: Index, blocks: int) -> Edge:
    return Edge(False, True) if blocks == 1 else Edge(bind(-least(block, 1)), block == blocks - 1)
