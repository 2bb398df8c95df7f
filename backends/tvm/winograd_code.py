"""Code of `WinogradFilterSpec` and `WinogradSpec`: transforms of vectors of channels, products in register tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np

from edgec.backends.base import Target
from edgec.backends.tvm._tvm import Expr, PrimFunc, tirx
from edgec.backends.tvm.builder import (
    Index,
    Pointer,
    bind,
    build_kernel,
    choose,
    constant,
    fill_value,
    lanes_of,
    local,
    serial,
    split_width,
    when,
)
from edgec.backends.tvm.epilogue import Epilogue
from edgec.backends.tvm.epilogue_code import Place, finish
from edgec.backends.tvm.gemm import UNIT, Axis, GemmSpec, Panels, Patches, Placement
from edgec.backends.tvm.gemm_code import Gemm
from edgec.backends.tvm.ranges_code import least, share
from edgec.backends.tvm.tiling import even_split
from edgec.backends.tvm.winograd import WinogradFilterSpec, WinogradSpec, transforms

Load = Callable[[int, int], Expr]


def emit_winograd_filter(spec: WinogradFilterSpec, target: Target) -> PrimFunc:
    matrix = transforms(spec.tile).filters
    panels, tail = divmod(spec.columns, spec.width)

    def body(w: Pointer, out: Pointer, lo: Expr, hi: Expr) -> None:
        def panel_of(panel: Index, width: int) -> None:
            source = panel * (9 * spec.channels * spec.width)
            to = panel * (spec.positions * spec.depth * spec.width)
            with serial(0, spec.channels) as channel:
                for column, lanes in split_width(width, target.lanes):
                    at = channel * width + column

                    def tap(i: int, j: int, at: Index = at, lanes: int = lanes) -> Expr:
                        return w.load(source + (i * 3 + j) * (spec.channels * width) + at, lanes)

                    for position, value in enumerate(_both_axes(matrix, _by_rows, tap)):
                        out.store(to + position * (spec.depth * width) + at, value)

        with serial(lo, hi) as panel:
            if panels:
                with when(panel < panels):
                    panel_of(panel, spec.width)
            if tail:
                with when(panel == panels):
                    panel_of(panels, tail)

    return build_kernel(spec.arguments, body)


def emit_winograd(spec: WinogradSpec, target: Target) -> PrimFunc:
    return build_kernel(spec.arguments, lambda *rest: _Winograd(spec, target, rest[:-2], rest[-2]).run(*rest[-2:]))


class _Winograd:
    def __init__(self, spec: WinogradSpec, target: Target, pointers: Sequence[Pointer], lo: Expr):
        self.spec, self.target = spec, target
        self.x, transformed, *self.rest, self.inputs, self.products = pointers
        self.filters = spec.filters
        depth = (UNIT, UNIT, Axis(self.filters.channels, 1))
        left = Patches(0, (UNIT, UNIT, Axis(spec.block, self.filters.channels)), depth)
        right = Panels(self.filters.depth, self.filters.columns, self.filters.width, self.filters.positions)
        nothing = Epilogue((), (), ())
        product = GemmSpec(
            "", left, right, Placement(self.filters.width, (0, 0, 1)), nothing, spec.tile_rows, spec.tail_rows, 1, 1
        )
        self.gemm = Gemm(product, target, self.inputs, transformed, (), lo)

    def run(self, lo: Expr, hi: Expr) -> None:
        spec = self.spec
        panels, tail = divmod(self.filters.columns, self.filters.width)
        with serial(lo, hi) as task, serial(*share(spec.blocks, spec.tasks, task)) as block:
            first, last = share(spec.tiles, spec.blocks, block)
            with serial(0, last - first) as t:
                self.transform_input(task, t, *self.place(first + t), lo)
            if panels:
                with serial(0, panels) as panel:
                    self.panel(task, first, last, panel, self.filters.width, spec.tile_rows)
            if tail:
                self.panel(task, first, last, panels, tail, spec.tail_rows)

    def place(self, tile: Index) -> tuple[Index, Index, Index]:
        """Image, first line and first column of a tile's results."""
        ys, xs = self.spec.grid
        # The remainder changes nothing but bounds the offsets.
        image, rest = tile // (ys * xs) % self.spec.images, tile % (ys * xs)
        return image, rest // xs * self.filters.tile, rest % xs * self.filters.tile

    def transform_input(self, task: Index, t: Index, image: Index, y: Index, x: Index, lo: Expr) -> None:
        spec, (height, width) = self.spec, self.spec.size
        top, left = y - spec.pads[0], x - spec.pads[1]
        matrix = transforms(self.filters.tile).inputs
        channels = self.filters.channels
        out = task * (self.filters.positions * spec.input_stride) + t * channels

        def pixel(i: Index, j: Index) -> Index:
            return ((image * height + top + i) * width + left + j) * channels

        def store(channel: Index, load: Load) -> None:
            for position, value in enumerate(_both_axes(matrix, _by_rows, load)):
                self.inputs.store(out + position * spec.input_stride + channel, value)

        def inside(channel: Index, lanes: int) -> None:
            store(channel, lambda i, j: self.x.load(pixel(i, j) + channel, lanes))

        def at_border(channel: Index, lanes: int) -> None:
            patch = local(spec.span**2 * lanes)
            with serial(0, spec.span) as i, serial(0, spec.span) as j:
                to = (i * spec.span + j) * lanes
                within = tirx.all(top + i >= 0, top + i < height, left + j >= 0, left + j < width)
                choose(
                    within,
                    lambda: patch.store(to, self.x.load(pixel(i, j) + channel, lanes)),
                    lambda: patch.store(to, fill_value(lo, lanes)),
                )
            store(channel, lambda i, j: patch.load((i * spec.span + j) * lanes, lanes))

        whole = tirx.all(top >= 0, left >= 0, top + spec.span <= height, left + spec.span <= width)
        choose(whole, lambda: self.each_vector(inside), lambda: self.each_vector(at_border))

    def each_vector(self, body: Callable[[Index, int], None]) -> None:
        """All channels of a pixel."""
        lanes = self.target.lanes
        whole = self.filters.channels // lanes
        if whole:
            with serial(0, whole) as i:
                body(i * lanes, lanes)
        for start, rest in split_width(self.filters.channels % lanes, lanes):
            body(whole * lanes + start, rest)

    def panel(self, task: Index, first: Index, last: Index, panel: Index, width: int, tile_rows: int) -> None:
        spec = self.spec
        with serial(0, spec.span**2) as position:
            height, taller, shorter = even_split(spec.block, tile_rows)
            for h, count, base in ((height, taller, 0), (height - 1, shorter, taller * height)):
                if count:
                    with serial(0, count) as i:
                        self.multiply(task, position, base + i * h, h, panel, width)
        with serial(0, last - first) as t:
            self.transform_products(task, t, *self.place(first + t), panel, width)

    def multiply(self, task: Index, position: Index, row: Index, height: int, panel: Index, width: int) -> None:
        spec = self.spec
        sums = local(height * width)
        matrix = task * self.filters.positions + position
        start = self.gemm.panel_start(position, panel, width)
        self.gemm.multiply(sums, 1, matrix * spec.input_stride + row * self.filters.channels, start, height, width)
        for r in range(height):
            for column, lanes in split_width(width, self.target.lanes):
                value = sums.load(r * width + column, lanes)
                self.products.store(matrix * spec.product_stride + (row + r) * self.filters.width + column, value)

    def transform_products(
        self, task: Index, t: Index, image: Index, y: Index, x: Index, panel: Index, width: int
    ) -> None:
        spec, tile, (height, out_width) = self.spec, self.filters.tile, self.spec.out
        matrix = transforms(tile).products
        start = task * (self.filters.positions * spec.product_stride) + t * self.filters.width
        for column, lanes in split_width(width, self.target.lanes):

            def load(i: int, j: int, column: int = column, lanes: int = lanes) -> Expr:
                position = i * spec.span + j
                return self.products.load(start + position * spec.product_stride + column, lanes)

            results = local(tile**2 * lanes)
            for i, value in enumerate(_both_axes(matrix, _by_columns, load)):
                results.store(i * lanes, value)
            at = panel * self.filters.width + column
            with serial(0, least(tile, height - y)) as i, serial(0, least(tile, out_width - x)) as j:
                row = (image * height + y + i) * out_width + x + j
                result = results.load((i * tile + j) * lanes, lanes)
                finish(spec.epilogue, self.rest, result, Place(row * self.filters.columns + at, row, at))


# -- one matrix from both sides ----------------------------------------

Transform = Callable[[np.ndarray, Sequence[Expr]], list[Expr]]


def _both_axes(matrix: np.ndarray, transform: Transform, load: Load) -> list[Expr]:
    """matrix * X * matrix^T, row-major, for X[i, j] = load(i, j)."""
    count = matrix.shape[1]
    columns = [transform(matrix, [bind(load(i, j)) for i in range(count)]) for j in range(count)]
    rows = zip(*columns, strict=True)
    return [value for row in rows for value in transform(matrix, row)]


def _by_rows(matrix: np.ndarray, x: Sequence[Expr]) -> list[Expr]:
    """matrix * x where rows 1 and 2, 3 and 4... are of points that differ in sign: their even terms are the same, their
    odd ones opposite.
    """
    results = [_sum(matrix[0], x)]
    for row in matrix[1:-1:2]:
        even, odd = (bind(_sum(row[start::2], x[start::2])) for start in (0, 1))
        results += [bind(even + odd), bind(even - odd)]
    return [*results, _sum(matrix[-1], x)]


def _by_columns(matrix: np.ndarray, x: Sequence[Expr]) -> list[Expr]:
    """The same where columns are paired."""
    first, *middle, last = x
    sums = [bind(a + b) for a, b in zip(middle[::2], middle[1::2], strict=True)]
    differences = [bind(a - b) for a, b in zip(middle[::2], middle[1::2], strict=True)]
    return [
        _sum(row[[0, *range(1, len(row) - 1, 2), -1]], [first, *(differences if i % 2 else sums), last])
        for i, row in enumerate(matrix)
    ]


def _sum(factors: Sequence[float], x: Sequence[Expr]) -> Expr:
    """Of products, without those by 0 and 1; plain terms first, for the others are added to them at once."""
    terms = [(float(np.float32(factor)), value) for factor, value in zip(factors, x, strict=True) if factor]
    terms.sort(key=lambda term: abs(term[0]) != 1)

    def scaled(factor: float, value: Expr) -> Expr:
        return value if factor == 1 else constant(factor, lanes_of(value)) * value

    def add(total: Expr, term: tuple[float, Expr]) -> Expr:
        factor, value = term
        return total - value if factor == -1 else total + scaled(factor, value)

    return bind(reduce(add, terms[1:], scaled(*terms[0])))
