"""Code of `DepthwiseSpec`: tiles along x in registers, kernel rows in a loop whose bounds are the borders.

A tile's columns are unrolled with the taps they meet, so a line needs a few bodies (left edge, middle, right edge)
and no padding; along y a border only shortens the loop over kernel rows. Channels are innermost: every pixel is
one contiguous stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from edgec.backends.base import Target
from edgec.backends.tvm._tvm import Expr, PrimFunc, T
from edgec.backends.tvm.builder import (
    Index,
    Pointer,
    bind,
    build_kernel,
    fill_value,
    local,
    masked,
    opaque_zero,
    serial,
    split_width,
    when,
)
from edgec.backends.tvm.depthwise import DepthwiseSpec, Taps, Tile, tiles
from edgec.backends.tvm.epilogue_code import Place, each_row, finish
from edgec.backends.tvm.ranges_code import share
from edgec.backends.tvm.tails_code import add_up
from edgec.backends.tvm.tiling import even_split


def emit_depthwise(spec: DepthwiseSpec, target: Target) -> PrimFunc:
    def body(source: Pointer, weight: Pointer, *rest: Pointer | Expr) -> None:
        kernel = _Depthwise(spec, target, source, weight, rest[:-2], rest[-2])
        with serial(*rest[-2:]) as task:
            with serial(*share(spec.images * spec.lines, spec.tasks, task)) as unit:
                kernel.unit(unit // spec.lines, unit % spec.lines)
            if spec.tail:
                columns = (0, spec.channels)
                add_up(spec.tail, rest[:-2], task, columns, spec.channels, target, opaque_zero(rest[-2]))

    return build_kernel(spec.arguments, body)


class _Depthwise:
    def __init__(
        self, spec: DepthwiseSpec, target: Target, source: Pointer, weight: Pointer, rest: Sequence[Pointer], lo: Expr
    ):
        self.spec, self.target, self.source, self.weight, self.rest, self.lo = spec, target, source, weight, rest, lo

    def unit(self, image: Index, q: Index) -> None:
        spec = self.spec
        with each_phase(spec.ys, self.lo) as phases:
            for ys in phases:
                # All phases have equally many lines, or the first ones have one more.
                with when(q < ys.count) if any(taps.count < spec.lines for taps in spec.ys) else nullcontext():
                    self.line(image, q, ys)

    def line(self, image: Index, q: Index, ys: Taps) -> None:
        first, last = valid_taps(ys, q, self.spec.source_size[0])
        spec, size, registers = self.spec, self.spec.source_size[1], self.target.registers
        for xs in spec.xs:
            split = even_split(xs.count, spec.tile)
            for tile in tiles(xs, size, split, registers - split[0] - xs.taps - 1):
                with serial(0, tile.count) as i:
                    x = tile.start + i * tile.width
                    self.channels(image, q, (first, last), ys, xs, tile, x, Border(xs, tile, x, size, spec.channels))

    def channels(
        self, image: Index, q: Index, rows: tuple[Index, Index], ys: Taps, xs: Taps, tile: Tile, x: Index,
        border: Border,
    ) -> None:  # fmt: skip
        lanes, channels = self.target.lanes, self.spec.channels
        whole = channels // lanes
        if whole:
            with serial(0, whole) as c:
                self.tile(image, q, rows, ys, xs, tile, x, border, c * lanes, lanes)
        for start, narrow in split_width(channels % lanes, lanes):
            self.tile(image, q, rows, ys, xs, tile, x, border, whole * lanes + start, narrow)

    def tile(
        self, image: Index, q: Index, rows: tuple[Index, Index], ys: Taps, xs: Taps, tile: Tile, x: Index,
        border: Border, c: Index, lanes: int,
    ) -> None:  # fmt: skip
        spec = self.spec
        height, width = spec.source_size
        out_height, out_width = spec.size
        line = (image * out_height + ys.start + q * ys.stride) * out_width + xs.start
        sums = local(tile.width * lanes)
        for i in range(tile.width):
            sums.store(i * lanes, fill_value(self.lo, lanes))
        # What meets what: results of each source column, relative to the tile's first.
        columns: dict[int, list[tuple[int, int]]] = {}
        for i, taps in enumerate(tile.taps):
            for t in taps:
                columns.setdefault(xs.column(i, t), []).append((i, t))
        with serial(*rows) as t:
            y = q * ys.source_stride + ys.first + t * ys.step
            base = ((image * height + y) * width + x * xs.source_stride + xs.first) * spec.channels + c
            row = ((ys.tap + t * ys.tap_step) * spec.kernel[1] + xs.tap) * spec.channels + c
            used = sorted({tap for taps in tile.taps for tap in taps})
            weights = {tap: bind(self.weight.load(row + tap * xs.tap_step * spec.channels, lanes)) for tap in used}
            for column, met in sorted(columns.items()):
                value = bind(border.load(self.source, base, column, lanes))
                for i, tap in met:
                    sums.store(i * lanes, sums.load(i * lanes, lanes) + value * weights[tap])

        def store(i: Index, results: Pointer) -> None:
            place = line + (x + i) * xs.stride
            finish(spec.epilogue, self.rest, results.load(i * lanes, lanes), Place(place * spec.channels + c, place, c))

        each_row(spec.epilogue, sums, tile.width, ((0, lanes),), store)


class Border:
    """What a tile from result x on reads where its columns lie outside of lines of `size`: 0."""

    def __init__(self, taps: Taps, tile: Tile, x: Index, size: int, channels: int):
        self._channels = channels
        self._columns: dict[int, tuple[Expr, Expr]] = {}
        for unsure in tile.unsure:
            place = taps.source(x, 0) + unsure.column
            outside = bind((place if unsure.shift > 0 else size - 1 - place) >> 31)
            self._columns[unsure.column] = bind(outside & (unsure.shift * channels)), bind(-1 - outside)

    def offset(self, base: Index, column: int) -> Index:
        """Of what is read, in a line where column 0 is at `base`."""
        shift, _ = self._columns.get(column, (0, None))
        return base + column * self._channels + shift

    def load(self, source: Pointer, base: Index, column: int, lanes: int) -> Expr:
        read = source.load(self.offset(base, column), lanes)
        return masked(read, self._columns[column][1]) if column in self._columns else read


@contextmanager
def each_phase(phases: Sequence[Taps], lo: Expr) -> Iterator[Sequence[Taps]]:
    """The taps of all phases of an axis, to be gone through: one for a loop over phases, if all their numbers are
    linear in the phase's.
    """
    first, *others = map(vars, phases)
    steps = {name: others[0][name] - value for name, value in first.items()} if others else {}
    if not others or any(
        taps != {name: value + phase * steps[name] for name, value in first.items()}
        for phase, taps in enumerate(others, 1)
    ):
        yield phases
        return
    with serial(0, len(phases) + opaque_zero(lo)) as phase:
        yield (Taps(**{name: value + phase * steps[name] if steps[name] else value for name, value in first.items()}),)


def valid_taps(taps: Taps, q: Index, size: int) -> tuple[Index, Index]:
    """The range of t of result q that lies within a source of `size`; constant where no border can be met."""
    if all(isinstance(number, int) for number in vars(taps).values()):
        if not taps.taps:
            return 0, 0
        if taps.source(0, 0) >= 0 and taps.source(taps.count - 1, taps.taps - 1) < size:
            return 0, taps.taps
    at = q * taps.source_stride + taps.first  # source of t = 0
    # Smallest t with at + t * step >= 0, and smallest with at + t * step >= size; numerators are made positive for //.
    lift = taps.taps * taps.step
    first = T.max(T.min((lift - at + taps.step - 1) // taps.step - taps.taps, taps.taps), 0)
    last = T.max(T.min((lift + size - at + taps.step - 1) // taps.step - taps.taps, taps.taps), 0)
    return first, last
