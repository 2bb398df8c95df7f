"""Code of `GemmSpec`: register tiles of rows by vectors of columns, the depth innermost."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from edgec.backends.base import Target
from edgec.backends.tvm._tvm import Expr, PrimFunc, T
from edgec.backends.tvm.builder import (
    Index,
    Pointer,
    broadcast,
    build_kernel,
    constant,
    local,
    serial,
    split_width,
    when,
)
from edgec.backends.tvm.epilogue_code import Place, finish
from edgec.backends.tvm.gemm import GemmSpec, Panels
from edgec.backends.tvm.tiling import even_split

_LATENCY = 8  # independent multiply-adds that keep two FMA units busy


def emit_gemm(spec: GemmSpec, target: Target) -> PrimFunc:
    return build_kernel(
        spec.arguments, lambda left, right, *rest: _Gemm(spec, target, left, right, rest[:-2]).run(*rest[-2:])
    )


class _Gemm:
    def __init__(self, spec: GemmSpec, target: Target, left: Pointer, right: Pointer, rest: Sequence[Pointer]):
        self.spec, self.target, self.left, self.right, self.rest = spec, target, left, right, rest
        self.panels, self.tail = divmod(spec.right.columns, spec.right.width)

    def run(self, lo: Expr, hi: Expr) -> None:
        spec, width = self.spec, self.spec.right.width
        with serial(lo, hi) as task:
            group, rest = task % spec.panel_groups, task // spec.panel_groups
            # The last remainder changes nothing but bounds the offsets: without it they overflow TVM's int32.
            block, batch = rest % spec.row_blocks, rest // spec.row_blocks % spec.batch
            count = self.panels + bool(self.tail)
            first, last = share(count, spec.panel_groups, group)
            if self.panels:
                with serial(first, least(last, self.panels)) as panel:
                    self.rows(batch, block, panel, width, spec.tile_rows)
            if self.tail:
                with when(last == count):
                    self.rows(batch, block, self.panels, self.tail, spec.tail_rows)

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
        spec, vectors = self.spec, split_width(width, self.target.lanes)
        images, ys, xs = spec.left.rows
        start = spec.left.start + batch * spec.left.batch_stride + image * images.stride + y * ys.stride + x * xs.stride
        base, step = self.panel_start(batch, panel, width)
        outer, middle, inner = spec.left.depth
        parts = max(1, min(inner.count, _LATENCY // (height * len(vectors))))
        sums = local(parts * height * width)

        def place(part: int, row: int, column: int) -> int:
            return (part * height + row) * width + column

        for part in range(parts):
            for row in range(height):
                for column, lanes in vectors:
                    sums.store(place(part, row, column), constant(0.0, lanes))

        def multiply(part: int, offset: Index, depth: Index) -> None:
            for row in range(height):
                for column, lanes in vectors:
                    at = place(part, row, column)
                    scale = broadcast(self.left.load(offset + row * xs.stride), lanes)
                    product = scale * self.right.load(base + depth * step + column, lanes)
                    sums.store(at, sums.load(at, lanes) + product)

        with ExitStack() as loops:
            i = loops.enter_context(serial(0, outer.count))
            j = loops.enter_context(serial(0, middle.count))
            offset = start + i * outer.stride + j * middle.stride
            depth = (i * middle.count + j) * inner.count
            with serial(0, inner.count // parts) as k:
                for part in range(parts):
                    index = k * parts + part
                    multiply(part, offset + index * inner.stride, depth + index)
            for index in range(inner.count // parts * parts, inner.count):
                multiply(0, offset + index * inner.stride, depth + index)

        out = spec.output
        for row in range(height):
            line = out.start + batch * out.batch_rows + image * out.strides[0] + y * out.strides[1]
            line = line + (x + row) * out.strides[2]
            for column, lanes in vectors:
                result = sums.load(place(0, row, column), lanes)
                for part in range(1, parts):
                    result = result + sums.load(place(part, row, column), lanes)
                at = batch * out.batch_columns + panel * spec.right.width + column
                finish(spec.epilogue, self.rest, result, Place(line * out.columns + at, line, at))

    def panel_start(self, batch: Index, panel: Index, width: int) -> tuple[Index, int]:
        """Offset of a panel's first element in the right matrix, and elements between its rows."""
        right = self.spec.right
        if isinstance(right, Panels):
            return panel * (right.width * right.depth * right.groups) + batch * (right.depth * width), width
        return panel * right.width + batch * right.batch_stride, right.row_stride


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


def least(a: Index, b: Index) -> Index:
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else T.min(a, b)


def greatest(a: Index, b: Index) -> Index:
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else T.max(a, b)
