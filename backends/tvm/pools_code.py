"""Code of pools: for each position a block of channels in registers, over the taps that lie inside the input."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgec.backends.base import Target
from edgec.backends.tvm._tvm import Expr, PrimFunc, T
from edgec.backends.tvm.builder import (
    MEMORY_DTYPE,
    Index,
    Pointer,
    bind,
    broadcast,
    build_kernel,
    cast,
    constant,
    fill_value,
    larger,
    local,
    serial,
    split_width,
)
from edgec.backends.tvm.epilogue_code import Place, finish
from edgec.backends.tvm.generic.convolution_code import inside_input, read_position, windows_reading
from edgec.backends.tvm.generic.loops_code import loops, loops_over, where
from edgec.backends.tvm.generic.pooling_code import (
    divisor,
    first_tap,
    taken_position,
    tap_at,
    tap_number,
    where_taken,
)
from edgec.backends.tvm.generic.tensor_code import ravel, unravel
from edgec.backends.tvm.pools import BLOCK_VECTORS, PoolSpec
from edgec.graph.ops.avg_pool2d import AvgPool2d
from edgec.graph.ops.avg_pool2d_grad import AvgPool2dGrad
from edgec.graph.ops.max_pool2d import MaxPool2d
from edgec.graph.ops.max_pool2d_grad import MaxPool2dGrad
from edgec.graph.ops.max_pool2d_positions import MaxPool2dPositions, position_dtype
from edgec.graph.types import DType


def emit_pool(spec: PoolSpec, target: Target) -> PrimFunc:
    height, width = spec.result_size
    takes_maximum = isinstance(spec.op, MaxPool2d | MaxPool2dPositions)
    has_positions = isinstance(spec.op, MaxPool2dPositions | MaxPool2dGrad)

    def body(source: Pointer, *rest: Pointer | Expr) -> None:
        *pointers, lo, hi = rest
        positions = pointers.pop(0) if has_positions else None

        def block(n: Index, i: Index, j: Index, start: Index, extent: int) -> None:
            pieces = split_width(extent, target.lanes)
            block = _Block((n, i, j), start, pieces, local(extent), source)
            for piece, lanes in pieces:
                block.sums.store(piece, constant(-math.inf, lanes) if takes_maximum else fill_value(lo, lanes))
            if isinstance(spec.op, MaxPool2dGrad | AvgPool2dGrad):
                _gather_gradient(spec, block, positions)
            elif isinstance(spec.op, MaxPool2dPositions):
                taken = _gather_positions(spec, block, extent)
            else:
                _gather(spec, block)
            row = bind(ravel([n, i, j], [spec.images, height, width]))
            for piece, lanes in pieces:
                column = start + piece
                if isinstance(spec.op, MaxPool2dPositions):
                    number = cast(taken.load(piece, lanes), MEMORY_DTYPE[position_dtype(spec.op.kernel_size)])
                    positions.store(row * spec.channels + column, number)
                result = block.sums.load(piece, lanes)
                if isinstance(spec.op, AvgPool2d):
                    count = divisor(spec.window, spec.op.count_include_pad, i, j)
                    result = result / broadcast(count, lanes)
                finish(spec.epilogue, pointers, result, Place(row * spec.channels + column, row, column))

        with serial(lo, hi) as task, _share(task, spec.images * height, spec.tasks) as line:
            n, i = unravel(line, [spec.images, height])
            with serial(0, width) as j:
                _blocks(spec.channels, target, lambda start, extent: block(n, i, j, start, extent))

    return build_kernel(spec.arguments, body)


@dataclass(frozen=True)
class _Block:
    """Channels from `start` on of the result at `place` (image, row, column), in `pieces`; `sums` is what becomes of
    them, from `source`.
    """

    place: tuple[Index, Index, Index]
    start: Index
    pieces: Sequence[tuple[int, int]]
    sums: Pointer
    source: Pointer

    def offset(self, spec: PoolSpec, y: Index, x: Index) -> Expr:
        """Where the channels of the source's position (y, x) begin."""
        return bind(ravel([self.place[0], y, x], [spec.images, *spec.source_size]) * spec.channels + self.start)


def _gather(spec: PoolSpec, block: _Block) -> None:
    """The maximum or the sum of one window."""
    window, (_, i, j) = spec.window, block.place
    with loops(*window.kernel) as (ky, kx):
        y, x = read_position(window, 0, i, ky), read_position(window, 1, j, kx)
        with where(inside_input(window, y, x)):
            offset = block.offset(spec, y, x)
            for piece, lanes in block.pieces:
                value, before = block.source.load(offset + piece, lanes), block.sums.load(piece, lanes)
                block.sums.store(piece, larger(before, value) if isinstance(spec.op, MaxPool2d) else before + value)


def _gather_positions(spec: PoolSpec, block: _Block, extent: int) -> Pointer:
    """Maxima, and the numbers of their taps."""
    window, (_, i, j) = spec.window, block.place
    taken = local(extent, DType.I32)
    first = first_tap(window, i, j)
    for piece, lanes in block.pieces:
        taken.store(piece, broadcast(first, lanes))
    with loops(*window.kernel) as (ky, kx):
        y, x = read_position(window, 0, i, ky), read_position(window, 1, j, kx)
        with where(inside_input(window, y, x)):
            offset = block.offset(spec, y, x)
            for piece, lanes in block.pieces:
                value, best = bind(block.source.load(offset + piece, lanes)), bind(block.sums.load(piece, lanes))
                tap = broadcast(tap_number(window, ky, kx), lanes)
                taken.store(piece, taken_position(best, value, taken.load(piece, lanes), tap))
                block.sums.store(piece, larger(best, value))
    return taken


def _gather_gradient(spec: PoolSpec, block: _Block, positions: Pointer | None) -> None:
    """The sum of what windows give to one position: all that hold it their share, or those that took it all."""
    window, (_, *at) = spec.window, block.place
    with loops_over(*(windows_reading(window, axis, at[axis]) for axis in (0, 1))) as (y, x):
        tap, conditions = tap_at(window, at, (y, x))
        with where(conditions):
            offset = block.offset(spec, y, x)
            if positions is None:
                count = bind(divisor(window, spec.op.count_include_pad, y, x))
            for piece, lanes in block.pieces:
                given = block.source.load(offset + piece, lanes)
                if positions is None:
                    given = given / broadcast(count, lanes)
                else:
                    taken = cast(positions.load(offset + piece, lanes), "int32")
                    given = where_taken(taken, broadcast(tap, lanes), given)
                block.sums.store(piece, block.sums.load(piece, lanes) + given)


def _share(task: Index, total: int, tasks: int):
    """A loop over the task's share of `total` units."""
    share = -(-total // tasks)
    if tasks == 1:
        return serial(0, total)
    return serial(task * share, T.min(task * share + share, total))


def _blocks(channels: int, target: Target, block: Callable[[Index, int], None]) -> None:
    """All channels in blocks that fit into registers, and the rest."""
    extent = BLOCK_VECTORS * target.lanes
    full, rest = divmod(channels, extent)
    if full:
        with serial(0, full) as i:
            block(i * extent, extent)
    if rest:
        block(full * extent, rest)
