"""Code of `DepthwiseReduceSpec`: all taps of some kernel rows in registers while lines go by."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgec.backends.base import Target
from edgec.backends.tvm._tvm import Expr, PrimFunc, tirx
from edgec.backends.tvm.builder import (
    LINE,
    Index,
    Pointer,
    bind,
    build_kernel,
    choose,
    constant,
    local,
    masked,
    opaque_zero,
    prefetch,
    serial,
    split_width,
    when,
)
from edgec.backends.tvm.depthwise import DepthwiseReduceSpec, Tile, tiles
from edgec.backends.tvm.epilogue_code import Place, finish
from edgec.backends.tvm.gemm_code import FAR, least, share
from edgec.backends.tvm.gemm_reduce_code import Edge, edge_of
from edgec.backends.tvm.tiling import even_split


def emit_depthwise_reduce(spec: DepthwiseReduceSpec, target: Target) -> PrimFunc:
    return build_kernel(
        spec.arguments, lambda source, dy, *rest: _Reduce(spec, target, source, dy, rest[:-2]).run(*rest[-2:])
    )


class _Reduce:
    def __init__(
        self, spec: DepthwiseReduceSpec, target: Target, source: Pointer, dy: Pointer, rest: Sequence[Pointer]
    ):
        self.spec, self.target, self.source, self.dy = spec, target, source, dy
        count = len(spec.epilogue.arguments)
        self.far = sum(argument.elements for argument in spec.arguments) >= FAR
        self.rest = rest[:count]
        # Sums between blocks: in their own buffer, or where they are to be stored.
        self.partial = rest[count] if spec.needs_partial else rest[spec.epilogue.stores[0].argument]

    def run(self, lo: Expr, hi: Expr) -> None:
        spec, lanes = self.spec, self.target.lanes
        # At a border LLVM would unroll the loops over tiles, for code that seldom runs.
        self.opaque_zero = opaque_zero(lo)
        whole, tail = divmod(spec.channels, lanes)
        blocks = -(-spec.lines // spec.line_block)
        # A block meets the channels of all tasks while it is near.
        with serial(0, blocks) as block, serial(lo, hi) as task:
            start = block * spec.line_block
            count, edge = least(spec.lines - start, spec.line_block), edge_of(block, blocks)
            if whole:
                with serial(*share(whole, spec.tasks, task)) as c:
                    self.vector(c * lanes, lanes, start, count, edge)
            if tail:
                with when(task == spec.tasks - 1):
                    for offset, narrow in split_width(tail, lanes):
                        self.vector(whole * lanes + offset, narrow, start, count, edge)

    def vector(self, c: Index, lanes: int, start: Index, count: Index, edge: Edge) -> None:
        """Add `count` lines from `start` on to all taps of `lanes` channels."""
        for top in range(0, self.spec.ys.taps, self.spec.row_group):
            rows = range(top, min(top + self.spec.row_group, self.spec.ys.taps))
            self.rows(rows, c, lanes, start, count, edge)

    def rows(self, rows: range, c: Index, lanes: int, start: Index, count: Index, edge: Edge) -> None:
        spec, taps = self.spec, self.spec.xs.taps
        sums = local(len(rows) * taps * lanes)

        def each(visit: Callable[[int, Index, int], None]) -> None:
            for row in rows:
                for tap in range(taps):
                    visit(
                        ((row - rows[0]) * taps + tap) * lanes, (row * taps + tap) * spec.channels + c, row * taps + tap
                    )

        def clear(at: int, offset: Index, tap: int) -> None:
            sums.store(at, constant(0.0, lanes))

        def resume(at: int, offset: Index, tap: int) -> None:
            before = self.partial.load(offset, lanes)
            sums.store(at, before if edge.earlier is True else masked(before, edge.earlier))

        def end(at: int, offset: Index, tap: int) -> None:
            finish(spec.epilogue, self.rest, sums.load(at, lanes), Place(offset, tap, c))

        def suspend(at: int, offset: Index, tap: int) -> None:
            self.partial.store(offset, sums.load(at, lanes))

        each(resume if edge.earlier is not False else clear)
        with serial(0, count) as n:
            line = start + n
            image, y = line // spec.ys.count, line % spec.ys.count
            height = spec.source_size[0]
            top = y * spec.ys.source_stride + spec.ys.first
            inside = {row: self.row_inside(row, top, height) for row in rows}
            unsure = [condition for condition in inside.values() if condition is not True]
            if not unsure:
                self.line(sums, rows, rows, image, y, c, lanes)
            else:
                # At a border some kernel rows are outside: then each row goes by itself.
                everything = unsure[0] if len(unsure) == 1 else tirx.all(*unsure)
                with when(everything):
                    self.line(sums, rows, rows, image, y, c, lanes)
                with when(tirx.Not(everything)):
                    for row in rows:
                        with when(inside[row]):
                            self.line(sums, rows, range(row, row + 1), image, y, c, lanes)
        # What is stored and nothing more may be stored after every block.
        choose(edge.last if spec.epilogue.steps else True, lambda: each(end), lambda: each(suspend))

    def row_inside(self, row: int, top: Index, height: int) -> Expr | bool:
        ys = self.spec.ys
        lowest, highest = ys.source(0, row), ys.source(ys.count - 1, row)
        at = top + row * ys.step
        if lowest >= 0 and highest < height:
            return True
        if lowest >= 0:
            return at < height
        return at >= 0 if highest < height else tirx.all(at >= 0, at < height)

    def line(self, sums: Pointer, group: range, rows: range, image: Index, y: Index, c: Index, lanes: int) -> None:
        """Add one line of dy, for the kernel rows `rows` of the `group` that `sums` holds."""
        spec = self.spec
        height, width = spec.source_size
        for tile in tiles(spec.xs, width, even_split(spec.xs.count, spec.tile)):
            alike = tile.count if rows == group else tile.count + self.opaque_zero
            with serial(0, alike if tile.count > 1 else 1) as i:
                x = tile.start + i * tile.width
                self.tile(sums, group, rows, image * height, y, x, tile, (image * spec.ys.count + y), c, lanes)

    def tile(
        self, sums: Pointer, group: range, rows: range, top: Index, y: Index, x: Index, tile: Tile, line: Index,
        c: Index, lanes: int,
    ) -> None:  # fmt: skip
        spec, xs, ys = self.spec, self.spec.xs, self.spec.ys
        base = (line * xs.count + x) * spec.channels + c
        # Of each position a line is read, then those of the next channels when the block goes by again: what of it no
        # line above has read is asked for now.
        for i in range(tile.width) if self.far else ():
            prefetch(self.dy, base + i * spec.channels + LINE)
        gradient = [bind(self.dy.load(base + i * spec.channels, lanes)) for i in range(tile.width)]
        columns: dict[int, list[tuple[int, int]]] = {}
        for i, taps in enumerate(tile.taps):
            for t in taps:
                columns.setdefault(i * xs.source_stride + t * xs.step, []).append((i, t))
        for row in rows:
            source_y = top + y * ys.source_stride + ys.first + row * ys.step
            start = (source_y * spec.source_size[1] + x * xs.source_stride + xs.first) * spec.channels + c
            for column, met in sorted(columns.items()):
                if self.far and row in rows[-ys.source_stride :]:
                    prefetch(self.source, start + column * spec.channels + LINE)
                value = bind(self.source.load(start + column * spec.channels, lanes))
                for i, tap in met:
                    at = ((row - group[0]) * xs.taps + tap) * lanes
                    sums.store(at, sums.load(at, lanes) + value * gradient[i])
