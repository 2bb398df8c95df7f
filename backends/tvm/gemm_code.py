"""Code of `GemmSpec`: register tiles of rows by vectors of columns, the depth innermost."""

from __future__ import annotations

from collections.abc import Sequence

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
    opaque_zero,
    prefetch,
    serial,
    split_width,
    when,
)
from edgec.backends.tvm.epilogue_code import Place, each_row, finish
from edgec.backends.tvm.gemm import GemmSpec, Panels
from edgec.backends.tvm.ranges_code import greatest, least, share
from edgec.backends.tvm.tails_code import add_up, read_afar
from edgec.backends.tvm.tiling import chains, even_split, interleaved_sums, multiplies_by_element

_AHEAD = 2048  # elements: how far ahead lines of a panel are asked for. Memory answers while 8 KB are multiplied.
FAR = 8192  # elements of what does not stay in the nearest cache


def emit_gemm(spec: GemmSpec, target: Target) -> PrimFunc:
    return build_kernel(
        spec.arguments, lambda left, right, *rest: Gemm(spec, target, left, right, rest[:-2], rest[-2]).run(*rest[-2:])
    )


class Gemm:
    def __init__(
        self, spec: GemmSpec, target: Target, left: Pointer, right: Pointer, rest: Sequence[Pointer], lo: Expr
    ):
        self.spec, self.target, self.left, self.right, self.rest = spec, target, left, right, rest
        self.asked = [rest[argument] for argument in read_afar(spec.epilogue, spec.tail)]
        self.panels, self.tail = divmod(spec.right.columns, spec.right.width)
        # Loops over few chains must stay loops: unrolled, sums of one chain and totals fight for registers, and an
        # accumulator that loses costs a fifth of the time.
        self.opaque_zero = opaque_zero(lo)

    def run(self, lo: Expr, hi: Expr) -> None:
        spec = self.spec
        with serial(lo, hi) as task:
            group, rest = task % spec.panel_groups, task // spec.panel_groups
            # The last remainder changes nothing but bounds the offsets: without it they overflow TVM's int32.
            block, batch = rest % spec.row_blocks, rest // spec.row_blocks % spec.batch
            self.row_block(batch, block, *share(self.panels + bool(self.tail), spec.panel_groups, group))

    def row_block(self, batch: Index, block: Index, first: Index, last: Index) -> None:
        """One of the row blocks of one of the products, by the panels from `first` to before `last`."""
        spec = self.spec
        if self.panels:
            with serial(first, least(last, self.panels)) as panel:
                self.rows(batch, block, panel, spec.right.width, spec.tile_rows)
        if self.tail:
            with when(last == self.panels + 1):
                self.rows(batch, block, self.panels, self.tail, spec.tail_rows)
        if spec.tail:
            self.add_up(block, first, last)

    def add_up(self, block: Index, first: Index, last: Index) -> None:
        """What the tail makes of these panels of a row block: when all are stored, so that memory is read in order."""
        right, panels = self.spec.right, self.panels + bool(self.tail)
        columns = (first * right.width, least(last * right.width, right.columns))
        fewest = panels // self.spec.panel_groups * right.width - (right.width - self.tail if self.tail else 0)
        add_up(self.spec.tail, self.rest, block, columns, fewest, self.target, self.opaque_zero)

    def rows(self, batch: Index, block: Index, panel: Index, width: int, largest: int) -> None:
        """All tiles of one row block by one panel."""
        images, ys, xs = self.spec.left.rows
        blocks = self.spec.row_blocks
        height, taller, shorter = even_split(xs.count, largest)
        if self.spec.left.lines > 1:
            with serial(*share(self.spec.left.lines, blocks, block)) as line:
                image, y = line // ys.count, line % ys.count
                for h, begin, end, base in ((height, 0, taller, 0), (height - 1, 0, shorter, taller * height)):
                    if end:
                        with serial(begin, end) as i:
                            self.tile(batch, image, y, base + i * h, h, panel, width)
            return
        first, last = share(taller + shorter, blocks, block)
        if blocks == 1:
            first, last = 0, taller + shorter
        with serial(first, least(last, taller)) as i:
            self.tile(batch, 0, 0, i * height, height, panel, width)
        if shorter:
            with serial(greatest(first, taller), last) as i:
                self.tile(batch, 0, 0, taller + i * (height - 1), height - 1, panel, width)

    def tile(self, batch: Index, image: Index, y: Index, x: Index, height: int, panel: Index, width: int) -> None:
        """`height` rows from `x` on of a line, by one panel."""
        spec, vectors, out = self.spec, split_width(width, self.target.lanes), self.spec.output
        images, ys, xs = spec.left.rows
        start = spec.left.start + batch * spec.left.batch_stride + image * images.stride + y * ys.stride + x * xs.stride
        parts = interleaved_sums(spec.left.depth[2].count, height, len(vectors))  # added at the end
        sums = local(parts * height * width)
        line = out.start + batch * out.batch_rows + image * out.strides[0] + y * out.strides[1] + x * out.strides[2]
        column = batch * out.batch_columns + panel * spec.right.width
        self.ask(line, column, height, width)
        self.multiply(sums, parts, start, self.panel_start(batch, panel, width), height, width)

        for at in range(0, height * width, width):
            for start, lanes in vectors if parts > 1 else ():
                total = sums.load(at + start, lanes)
                for part in range(1, parts):
                    total = total + sums.load(part * height * width + at + start, lanes)
                sums.store(at + start, total)

        def store(row: Index, results: Pointer) -> None:
            own = line + row * out.strides[2]
            for at, lanes in vectors:
                place = Place(own * out.columns + column + at, own, column + at)
                finish(spec.epilogue, self.rest, results.load(row * width + at, lanes), place)

        each_row(spec.epilogue, sums, height, vectors, store)

    def ask(self, line: Index, column: Index, height: int, width: int) -> None:
        """Ask for what is read of a tile's results: a line or two of each row, which no processor foresees."""
        if not self.asked:
            return
        with serial(0, height + self.opaque_zero) as row:
            own = (line + row * self.spec.output.strides[2]) * self.spec.output.columns + column
            for pointer in self.asked:
                for at in range(0, width, LINE):
                    prefetch(pointer, own + at)

    def multiply(
        self, sums: Pointer, parts: int, start: Index, panel: tuple[Index, int], height: int, width: int
    ) -> None:
        """The sums over the depth, in chains (`tiling.chains`): what they come to is added up apart."""
        spec, vectors = self.spec, split_width(width, self.target.lanes)
        cells = [(at + column, lanes) for at in range(0, parts * height * width, width) for column, lanes in vectors]
        outer, middle, inner = spec.left.depth
        stride, (base, step) = spec.left.rows[2].stride, panel

        def add(part: int, scales: Sequence[Expr], depth: Index) -> None:
            for row, scale in enumerate(scales):
                for column, lanes in vectors:
                    at = (part * height + row) * width + column
                    product = broadcast(scale, lanes) * self.right.load(base + depth * step + column, lanes)
                    sums.store(at, sums.load(at, lanes) + product)

        def scalars(offset: Index) -> list[Expr]:
            return [self.left.load(offset + row * stride) for row in range(height)]

        by_element = multiplies_by_element(self.target) and inner.stride == 1 and inner.count >= self.target.lanes
        unroll = self.target.lanes if by_element else parts
        # The first tile that reads a panel would wait for memory; a single row is a stream that processors foresee.
        right = spec.right
        ahead = height > 1 and isinstance(right, Panels) and right.elements >= FAR
        cut, pieces = chains((outer.count, middle.count, inner.count))

        def chain(ranges: Sequence[tuple[Index, Index]]) -> None:
            """Add the products of some of the depth, the innermost loop in steps of `unroll`."""
            with serial(*ranges[0]) as i, serial(*ranges[1]) as j:
                offset = start + i * outer.stride + j * middle.stride
                depth = (i * middle.count + j) * inner.count
                with serial(*ranges[2]) as k:
                    if by_element:
                        rows = [
                            bind(self.left.load(offset + k * unroll + row * stride, unroll)) for row in range(height)
                        ]
                    for t in range(unroll):
                        at = k * unroll + t
                        if ahead and t * width % LINE < width:
                            for column in range(0, width, LINE):
                                prefetch(self.right, base + (depth + at) * step + column + _AHEAD)
                        scales = (
                            [element(row, t) for row in rows] if by_element else scalars(offset + at * inner.stride)
                        )
                        add(t % parts, scales, depth + at)
                if cut < 2:
                    rest(offset, depth)

        def rest(offset: Index, depth: Index) -> None:
            for at in range(inner.count // unroll * unroll, inner.count):
                add(0, scalars(offset + at * inner.stride), depth + at)

        counts = (outer.count, middle.count, inner.count)
        whole = [(0, outer.count), (0, middle.count), (0, inner.count // unroll)]
        for at, lanes in cells:
            sums.store(at, constant(0.0, lanes))
        if pieces == 1:
            chain(whole)
            return
        # Where a tile fills the registers, totals wait in memory while a chain runs.
        totals = local(parts * height * width)
        for at, lanes in cells:
            totals.store(at, constant(0.0, lanes))
        outside = [*counts[:cut], 1, 1]
        with serial(0, outside[0]) as i, serial(0, outside[1]) as j:
            with serial(0, pieces + self.opaque_zero) as piece:
                own = [(i, i + 1), (j, j + 1)][:cut]
                chain([*own, share(whole[cut][1], pieces, piece), *whole[cut + 1 :]])
                for at, lanes in cells:
                    totals.store(at, totals.load(at, lanes) + sums.load(at, lanes))
                    sums.store(at, constant(0.0, lanes))
            if cut == 2:
                rest(start + i * outer.stride + j * middle.stride, (i * middle.count + j) * inner.count)
        for at, lanes in cells:
            sums.store(at, totals.load(at, lanes) + sums.load(at, lanes))

    def panel_start(self, batch: Index, panel: Index, width: int) -> tuple[Index, int]:
        """Offset of a panel's first element in the right matrix, and elements between its rows."""
        right = self.spec.right
        if isinstance(right, Panels):
            own = batch * (right.depth * width) if right.groups > 1 else 0  # else one matrix for the whole batch
            return panel * (right.width * right.depth * right.groups) + own, width
        return panel * right.width + batch * right.batch_stride, right.row_stride
