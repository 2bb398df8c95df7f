"""Specs of the depthwise kernels: one filter per channel over NHWC maps, vectors along channels. Loads no tvm.

A forward convolution and an input gradient are the same sum over taps of another map; they differ in which
positions meet. `Taps` says so for one axis, and a strided gradient has one per phase (position mod stride), as in
`conv.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgec.backends.base import Argument
from edgec.backends.tvm.epilogue import Epilogue
from edgec.backends.tvm.tails import Tail
from edgec.graph.types import DType
from edgec.runtime.abi import Access


@dataclass(frozen=True)
class Taps:
    """Along one axis, result q of `count` stands at start + q * stride and reads source q * source_stride + first
    + t * step with
    kernel tap tap + t * tap_step, for t < taps, where that lies within the source.
    """

    count: int
    start: int = 0
    stride: int = 1
    source_stride: int = 1
    first: int = 0
    step: int = 1
    taps: int = 1
    tap: int = 0
    tap_step: int = 1

    @property
    def kernel_taps(self) -> tuple[int, ...]:
        return tuple(self.tap + t * self.tap_step for t in range(self.taps))

    def source(self, q: int, t: int) -> int:
        return q * self.source_stride + self.first + t * self.step

    def column(self, q: int, t: int) -> int:
        """The same, counted from where tap 0 of result 0 lies."""
        return q * self.source_stride + t * self.step


def forward_taps(count: int, kernel: int, stride: int, dilation: int, low: int) -> Taps:
    return Taps(count, source_stride=stride, first=-low, step=dilation, taps=kernel)


def gradient_taps(start: int, size: int, kernel: int, stride: int, dilation: int, low: int) -> Taps:
    """Positions start, start + stride, ... of an input of `size`, as sums over dy.

    Tap i of output o reads input o * stride + i * dilation - low; this is that, solved for o.
    """
    met = [i for i in reversed(range(kernel)) if (start + low - i * dilation) % stride == 0]
    period = stride // math.gcd(dilation, stride)
    return Taps(
        count=-(-(size - start) // stride),
        start=start,
        stride=stride,
        first=(start + low - met[0] * dilation) // stride if met else 0,
        step=dilation // math.gcd(dilation, stride),
        taps=len(met),
        tap=met[0] if met else 0,
        tap_step=-period,
    )


@dataclass(frozen=True)
class DepthwiseSpec:
    """output[n, y, x, c] = epilogue(sum over taps of source[n, y', x', c] * weight[tap_y, tap_x, c]).

    `source_size` and `size` are (H, W) of the source and the output; `ys` and `xs` give every output position
    once. Lines with equal q in all `ys` form one unit of work. Arguments: source, weight, those of the epilogue and of
    the tail, whose blocks are the tasks. Tasks: blocks of units.
    """

    role: str
    images: int
    channels: int
    source_size: tuple[int, int]
    size: tuple[int, int]
    kernel: tuple[int, int]
    ys: tuple[Taps, ...]
    xs: tuple[Taps, ...]
    epilogue: Epilogue
    tile: int  # most results along x in registers
    tasks: int
    tail: Tail | None = None

    @property
    def stem(self) -> str:
        return f"f32_{self.role}{self.epilogue.label}{self.tail.label if self.tail else ''}"

    @property
    def lines(self) -> int:
        """Units of work of one image."""
        return max(taps.count for taps in self.ys)

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return (
            Argument(DType.F32, self.images * math.prod(self.source_size) * self.channels, Access.READ),
            Argument(DType.F32, math.prod(self.kernel) * self.channels, Access.READ),
            *self.epilogue.arguments,
            *(self.tail.arguments if self.tail else ()),
        )


@dataclass(frozen=True)
class Unsure:
    """A source column, counted from the first result's tap 0, that lies outside for some of the tiles: before the line
    if `shift` is positive, else behind it. The column `shift` further lies inside then.
    """

    column: int
    shift: int


@dataclass(frozen=True)
class Tile:
    """Neighbouring results along x: `count` tiles of `width` from `start` on, in one loop. A result has the `taps` that
    it meets in some of the tiles.
    """

    start: int
    count: int
    width: int
    taps: tuple[tuple[int, ...], ...]  # of each result in a tile
    unsure: tuple[Unsure, ...]


def tiles(taps: Taps, size: int, heights: tuple[int, int, int], most_unsure: int) -> tuple[Tile, ...]:
    """Tiles along an axis, in as few loops as their widths and `most_unsure` columns of each allow. `heights` as
    `even_split` gives them.
    """
    width, taller, shorter = heights
    found: list[Tile] = []
    start = 0
    for index in range(taller + shorter):
        own = width if index < taller else width - 1
        last = found[-1] if found and found[-1].width == own else None
        joined = _alike(taps, size, last.start, last.count + 1, own) if last else None
        if joined and len(joined.unsure) <= most_unsure:
            found[-1] = joined
        else:
            found.append(_alike(taps, size, start, 1, own))
        start += own
    return tuple(found)


def _alike(taps: Taps, size: int, start: int, count: int, width: int) -> Tile | None:
    """Some tiles as one loop; None if a column lies outside on both sides, or further than the line is long."""
    firsts = [taps.source(start + number * width, 0) for number in range(count)]
    inside, unsure = set(), []
    for column in sorted({taps.column(i, t) for i in range(width) for t in range(taps.taps)}):
        places = [first + column for first in firsts]
        outside = [place for place in places if not 0 <= place < size]
        if len(outside) == count:
            continue
        inside.add(column)
        if outside:
            shift = -min(outside) if outside[0] < 0 else size - 1 - max(outside)
            if any(not 0 <= place + shift < size for place in outside):
                return None
            unsure.append(Unsure(column, shift))
    met = tuple(tuple(t for t in range(taps.taps) if taps.column(i, t) in inside) for i in range(width))
    return Tile(start, count, width, met, tuple(unsure))


@dataclass(frozen=True)
class DepthwiseReduceSpec:
    """weight[tap_y, tap_x, c] = epilogue(sum over n, y, x of source[n, y', x', c] * dy[n, y, x, c]): the weight's
    gradient.

    `ys` and `xs` are the forward convolution's. Sums of `line_block` lines are made in registers, for `row_group`
    kernel rows at a time; between blocks they stand in `partial` (an argument after the epilogue's, absent if one
    block does, or if the epilogue stores sums and nothing else). Arguments: source, dy, those of the epilogue,
    partial. Tasks: blocks of channels.
    """

    role: str
    images: int
    channels: int
    source_size: tuple[int, int]
    ys: Taps
    xs: Taps
    epilogue: Epilogue
    tile: int
    row_group: int
    line_block: int
    tasks: int

    @property
    def stem(self) -> str:
        return f"f32_{self.role}{self.epilogue.label}"

    @property
    def lines(self) -> int:
        return self.images * self.ys.count

    @property
    def needs_partial(self) -> bool:
        return self.lines > self.line_block and bool(self.epilogue.steps)

    @property
    def arguments(self) -> tuple[Argument, ...]:
        elements = self.ys.taps * self.xs.taps * self.channels
        partial = (Argument(DType.F32, elements, Access.READ_WRITE),) if self.needs_partial else ()
        return (
            Argument(DType.F32, self.images * math.prod(self.source_size) * self.channels, Access.READ),
            Argument(DType.F32, self.lines * self.xs.count * self.channels, Access.READ),
            *self.epilogue.arguments,
            *partial,
        )
