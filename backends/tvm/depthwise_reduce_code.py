"""Code of `DepthwiseReduceSpec`: all taps of some kernel rows in registers while lines go by."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgec.backends.base import Target
from edgec.backends.tvm._tvm import Expr, PrimFunc, tirx
from edgec.backends.tvm.builder import Index, Pointer, bind, build_kernel, constant, local, serial, split_width, when
from edgec.backends.tvm.depthwise import DepthwiseReduceSpec, Tile, tiles
from edgec.backends.tvm.epilogue_code import Place, finish
from edgec.backends.tvm.gemm_code import share
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
        self.rest = rest[:count]
        # Sums between blocks: in their own buffer, or where they are to be stored.
        self.partial = rest[count] if spec.needs_partial else rest[spec.epilogue.stores[0].argument]

    def run(self, lo: Expr, hi: Expr) -> None:
        spec, lanes = self.spec, self.target.lanes
        whole, tail = divmod(spec.channels, lanes)
        with serial(lo, hi) as task:
            first, last = share(whole, spec.tasks, task)
            blocks, rest = divmod(spec.lines, spec.line_block)

            def block(start: Index, count: int, is_first: bool, is_last: bool) -> None:
                if whole:
                    with serial(first, last) as c:
                        self.vector(c * lanes, lanes, start, count, is_first, is_last)
                for offset, narrow in split_width(tail, lanes):
                    with when(task == spec.tasks - 1):
                        self.vector(whole * lanes + offset, narrow, start, count, is_first, is_last)

            if spec.lines <= spec.line_block:
                block(0, spec.lines, True, True)
                return
            # The last block runs the epilogue; one that is all stores needs no code of its own.
            own_last = bool(rest) or bool(spec.epilogue.steps)
            loops = blocks if rest or not own_last else blocks - 1
            block(0, spec.line_block, True, False)
            if loops > 1:
                with serial(1, loops) as i:
                    block(i * spec.line_block, spec.line_block, False, False)
            if own_last:
                block(loops * spec.line_block, rest or spec.line_block, False, True)

    def vector(self, c: Index, lanes: int, start: Index, count: int, is_first: bool, is_last: bool) -> None:
        """Add `count` lines from `start` on to all taps of `lanes` channels."""
        for top in range(0, self.spec.ys.taps, self.spec.row_group):
            rows = range(top, min(top + self.spec.row_group, self.spec.ys.taps))
            self.rows(rows, c, lanes, start, count, is_first, is_last)

    def rows(self, rows: range, c: Index, lanes: int, start: Index, count: int, is_first: bool, is_last: bool) -> None:
        spec, taps = self.spec, self.spec.xs.taps
        sums = local(len(rows) * taps * lanes)

        def each(visit: Callable[[int, Index, int], None]) -> None:
            for row in rows:
                for tap in range(taps):
                    visit(
                        ((row - rows[0]) * taps + tap) * lanes, (row * taps + tap) * spec.channels + c, row * taps + tap
                    )

        def begin(at: int, offset: Index, _: int) -> None:
            sums.store(at, constant(0.0, lanes) if is_first else self.partial.load(offset, lanes))

        def end(at: int, offset: Index, tap: int) -> None:
            if is_last:
                finish(spec.epilogue, self.rest, sums.load(at, lanes), Place(offset, tap, c))
            else:
                self.partial.store(offset, sums.load(at, lanes))

        each(begin)
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
        each(end)

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
            with serial(0, tile.count) as i:
                x = tile.start + i * tile.width
                self.tile(sums, group, rows, image * height, y, x, tile, (image * spec.ys.count + y), c, lanes)

    def tile(
        self, sums: Pointer, group: range, rows: range, top: Index, y: Index, x: Index, tile: Tile, line: Index,
        c: Index, lanes: int,
    ) -> None:  # fmt: skip
        spec, xs, ys = self.spec, self.spec.xs, self.spec.ys
        base = (line * xs.count + x) * spec.channels + c
        gradient = [bind(self.dy.load(base + i * spec.channels, lanes)) for i in range(tile.width)]
        columns: dict[int, list[tuple[int, int]]] = {}
        for i, taps in enumerate(tile.taps):
            for t in taps:
                columns.setdefault(i * xs.source_stride + t * xs.step, []).append((i, t))
        for row in rows:
            source_y = top + y * ys.source_stride + ys.first + row * ys.step
            start = (source_y * spec.source_size[1] + x * xs.source_stride + xs.first) * spec.channels + c
            for column, met in sorted(columns.items()):
                value = bind(self.source.load(start + column * spec.channels, lanes))
                for i, tap in met:
                    at = ((row - group[0]) * xs.taps + tap) * lanes
                    sums.store(at, sums.load(at, lanes) + value * gradient[i])
