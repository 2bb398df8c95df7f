"""Code of `TransposeSpec` and `PadSpec`: blocks of vectors transposed or interleaved in registers."""

from __future__ import annotations

import itertools

from edgec.backends.base import Target
from edgec.backends.tvm._tvm import Expr, PrimFunc
from edgec.backends.tvm.builder import (
    LINE,
    Index,
    Pointer,
    bind,
    build_kernel,
    fill_value,
    prefetch,
    select,
    serial,
    shuffle,
    split_width,
    when,
)
from edgec.backends.tvm.repack import PadSpec, TransposeSpec
from edgec.backends.tvm.transpose_code import transpose

_SQUARE = 8  # widest block that is transposed in registers: wider ones cost more shuffles for each element
_INTERLEAVED = 4  # most channels that are interleaved in registers


def emit_transpose(spec: TransposeSpec, target: Target) -> PrimFunc:
    panels, tail = divmod(spec.columns, spec.width)
    sources, source_tail = divmod(spec.depth, spec.source_width)

    def ahead(panel: Index, source: Index, base: Index, tap: Index) -> Expr:
        """What is read after what begins at `base`: far from it, where a panel of the source ends."""
        beside = base + spec.source_width * spec.all_taps * spec.columns
        below = (tap * spec.columns + (panel + 1) * spec.width) * spec.source_width
        return bind(select(source + 1 < sources, beside, below))

    def body(x: Pointer, y: Pointer, lo: Expr, hi: Expr) -> None:
        def move(panel: Index, width: int, source: Index, source_width: int, to: Index, tap: Index) -> None:
            """One tap of a source panel into one panel: [width][source_width] to [source_width][width]."""
            base = source * (spec.source_width * spec.all_taps * spec.columns)
            base = base + (tap * spec.columns + panel * spec.width) * source_width
            out = (
                panel * (spec.width * len(spec.taps) * spec.depth)
                + (to * spec.depth + source * spec.source_width) * width
            )
            side = min(_SQUARE, target.lanes)
            next_base = ahead(panel, source, base, tap) if sources > 1 and width == spec.width else None

            def block(column: Index, lanes: int) -> None:
                if next_base is not None and lanes == side:
                    for line in range(0, lanes * source_width, LINE):
                        prefetch(x, next_base + column * source_width + line)
                whole = source_width // lanes
                if whole:
                    with serial(0, whole) as i:
                        rows = [
                            bind(x.load(base + (column + r) * source_width + i * lanes, lanes)) for r in range(lanes)
                        ]
                        for d, vector in enumerate(transpose(rows) if lanes > 1 else rows):
                            y.store(out + (i * lanes + d) * width + column, vector)
                for d in range(whole * lanes, source_width):
                    for r in range(lanes):
                        y.store(out + d * width + column + r, x.load(base + (column + r) * source_width + d))

            if width // side:
                with serial(0, width // side) as i:
                    block(i * side, side)
            for start, lanes in split_width(width % side, side):
                block(width // side * side + start, lanes)

        def panel_of(panel: Index, width: int) -> None:
            def all_sources(to: Index, tap: Index) -> None:
                if sources:
                    with serial(0, sources) as source:
                        move(panel, width, source, spec.source_width, to, tap)
                if source_tail:
                    move(panel, width, sources, source_tail, to, tap)

            step = _step(spec.taps)
            if step is not None:
                with serial(0, len(spec.taps)) as to:
                    all_sources(to, spec.taps[0] + to * step)
                return
            for to, tap in enumerate(spec.taps):
                all_sources(to, tap)

        with serial(lo, hi) as panel:
            if not tail:
                panel_of(panel, spec.width)
            elif not panels:
                panel_of(panel, tail)
            else:
                with when(panel < panels):
                    panel_of(panel, spec.width)
                with when(panel == panels):
                    panel_of(panels, tail)

    return build_kernel(spec.arguments, body)


def _step(taps: tuple[int, ...]) -> int | None:
    """By how much each tap differs from the one before, if that is the same for all of them, as where none is left
    out: then they are a loop.
    """
    steps = {after - before for before, after in itertools.pairwise(taps)}
    return steps.pop() if len(steps) == 1 else None


def emit_pad(spec: PadSpec, target: Target) -> PrimFunc:
    _, channels, height, width = spec.shape
    top, left, _, right = spec.pads
    lines, line_width = spec.padded
    n_stride, c_stride, y_stride, x_stride = spec.strides

    def body(x: Pointer, y: Pointer, lo: Expr, hi: Expr) -> None:
        def zero(out: Index, count: int) -> None:
            whole = count // target.lanes
            if whole:
                with serial(0, whole) as i:
                    y.store(out + i * target.lanes, fill_value(lo, target.lanes))
            for start, lanes in split_width(count % target.lanes, target.lanes):
                y.store(out + whole * target.lanes + start, fill_value(lo, lanes))

        def copy(source: Index, out: Index) -> None:
            """`width` pixels of a line."""
            if c_stride == 1 or channels == 1:
                if x_stride == channels:
                    _copy(x, y, source, out, width * channels, target.lanes)
                    return
                with serial(0, width) as i:
                    _copy(x, y, source + i * x_stride, out + i * channels, channels, target.lanes)
                return
            whole = 0
            if x_stride == 1 and channels <= _INTERLEAVED:
                lanes = target.lanes
                whole = width // lanes
                if whole:
                    with serial(0, whole) as i:
                        planes = [bind(x.load(source + c * c_stride + i * lanes, lanes)) for c in range(channels)]
                        for start in range(0, channels * lanes, lanes):
                            indices = [k % channels * lanes + k // channels for k in range(start, start + lanes)]
                            y.store(out + i * (lanes * channels) + start, shuffle(planes, indices))
                whole *= lanes
            if whole < width:
                with serial(whole, width) as i, serial(0, channels) as c:
                    y.store(out + i * channels + c, x.load(source + c * c_stride + i * x_stride))

        with serial(lo, hi) as task:
            image, line = task // lines, task % lines
            out = task * (line_width * channels)

            def inside() -> None:
                zero(out, left * channels)
                copy(image * n_stride + (line - top) * y_stride, out + left * channels)
                zero(out + (left + width) * channels, right * channels)

            if lines == height:
                inside()
            else:
                with when(line < top):
                    zero(out, line_width * channels)
                with when(line >= top + height):
                    zero(out, line_width * channels)
                with when(line >= top), when(line < top + height):
                    inside()

    return build_kernel(spec.arguments, body)


def _copy(x: Pointer, y: Pointer, source: Index, out: Index, count: int, lanes: int) -> None:
    whole = count // lanes
    if whole:
        with serial(0, whole) as i:
            y.store(out + i * lanes, x.load(source + i * lanes, lanes))
    for start, rest in split_width(count % lanes, lanes):
        y.store(out + whole * lanes + start, x.load(source + whole * lanes + start, rest))
