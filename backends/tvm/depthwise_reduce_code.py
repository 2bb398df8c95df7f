"""Code of `DepthwiseReduceSpec`: all taps of some kernel rows in registers while lines go by."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

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
from edgec.backends.tvm.depthwise_code import Border
from edgec.backends.tvm.epilogue_code import Place, finish
from edgec.backends.tvm.gemm_code import FAR
from edgec.backends.tvm.gemm_reduce_code import Edge, edge_of
from edgec.backends.tvm.ranges_code import greatest, least, share
from edgec.backends.tvm.tiling import even_split

Outside = Mapping[int, tuple[Index, Expr]]  # of kernel rows that may be: a line to read instead, and a mask for it


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
            unsure = [row for row in rows if not self.is_sure(row)]
            inside = [(at >= 0, at < height) for at in (top + row * spec.ys.step for row in unsure)]
            if not unsure:
                self.line(sums, rows, {}, image, y, c, lanes)
            else:
                everything = tirx.all(*itertools.chain(*inside))
                with when(everything):
                    self.line(sums, rows, {}, image, y, c, lanes)
                with when(tirx.Not(everything)):
                    outside = {row: self.within(top + row * spec.ys.step) for row in unsure}
                    self.line(sums, rows, outside, image, y, c, lanes)
        # What is stored and nothing more may be stored after every block.
        choose(edge.last if spec.epilogue.steps else True, lambda: each(end), lambda: each(suspend))

    def is_sure(self, row: int) -> bool:
        """Whether a kernel row lies within the map wherever the kernel does."""
        ys = self.spec.ys
        return ys.source(0, row) >= 0 and ys.source(ys.count - 1, row) < self.spec.source_size[0]

    def within(self, y: Index) -> tuple[Index, Expr]:
        """A line of the map, which is `y` if that is one, and a mask that is 0 if it is not."""
        height = self.spec.source_size[0]
        outside = (y | (height - 1 - y)) >> 31
        return bind(greatest(least(y, height - 1), 0)), bind(-1 - outside)

    def line(self, sums: Pointer, rows: range, outside: Outside, image: Index, y: Index, c: Index, lanes: int) -> None:
        """Add one line of dy, for the kernel rows `rows`; those `outside` may be."""
        spec = self.spec
        height, width = spec.source_size
        split = even_split(spec.xs.count, spec.tile)
        # Beside them what is read, and two that LLVM takes: with all of 16 in use it spilled sums.
        spare = self.target.registers - len(rows) * spec.xs.taps - split[0] - 3
        for tile in tiles(spec.xs, width, split, spare):
            alike = tile.count + self.opaque_zero if outside else tile.count
            with serial(0, alike if tile.count > 1 else 1) as i:
                x = tile.start + i * tile.width
                border = Border(spec.xs, tile, x, width, spec.channels)
                self.tile(sums, rows, outside, border, image, y, x, tile, c, lanes)

    def tile(
        self, sums: Pointer, rows: range, outside: Outside, border: Border, image: Index, y: Index, x: Index,
        tile: Tile, c: Index, lanes: int,
    ) -> None:  # fmt: skip
        spec, xs, ys = self.spec, self.spec.xs, self.spec.ys
        base = ((image * ys.count + y) * xs.count + x) * spec.channels + c
        # Of each position a line is read, then those of the next channels when the block goes by again: what of it no
        # line above has read is asked for now.
        for i in range(tile.width) if self.far else ():
            prefetch(self.dy, base + i * spec.channels + LINE)
        gradient = [bind(self.dy.load(base + i * spec.channels, lanes)) for i in range(tile.width)]
        columns: dict[int, list[tuple[int, int]]] = {}
        for i, taps in enumerate(tile.taps):
            for t in taps:
                columns.setdefault(xs.column(i, t), []).append((i, t))
        for row in rows:
            source_y, mask = outside.get(row, (y * ys.source_stride + ys.first + row * ys.step, None))
            start = (image * spec.source_size[0] + source_y) * spec.source_size[1] + x * xs.source_stride + xs.first
            start = start * spec.channels + c
            for column, met in sorted(columns.items()):
                if self.far and row in rows[-ys.source_stride :]:
                    prefetch(self.source, border.offset(start, column) + LINE)
                value = border.load(self.source, start, column, lanes)
                value = bind(value if mask is None else masked(value, mask))
                for i, tap in met:
                    at = ((row - rows[0]) * xs.taps + tap) * lanes
                    sums.store(at, sums.load(at, lanes) + value * gradient[i])
