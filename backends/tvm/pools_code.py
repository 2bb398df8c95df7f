"""Code of pools: for each position a block of channels in registers, over the taps that lie inside the input."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from edgec.backends.base import Target
from edgec.backends.tvm._tvm import Expr, PrimFunc, T
from edgec.backends.tvm.builder import (
    Index,
    Pointer,
    bind,
    broadcast,
    build_kernel,
    constant,
    fill_value,
    local,
    select,
    serial,
    split_width,
)
from edgec.backends.tvm.epilogue_code import Place, finish
from edgec.backends.tvm.generic.convolution_code import inside_input, read_position, reader
from edgec.backends.tvm.generic.loops_code import loops, where
from edgec.backends.tvm.generic.pooling_code import divisor, larger
from edgec.backends.tvm.generic.tensor_code import quotient, ravel, remainder, unravel
from edgec.backends.tvm.pools import BLOCK_VECTORS, MaxPoolGradSpec, PoolSpec
from edgec.graph.ops.avg_pool2d_grad import AvgPool2dGrad
from edgec.graph.ops.max_pool2d import MaxPool2d


def emit_pool(spec: PoolSpec, target: Target) -> PrimFunc:
    height, width = spec.result_size

    def body(source: Pointer, *rest: Pointer | Expr) -> None:
        *pointers, lo, hi = rest

        def block(n: Index, i: Index, j: Index, start: Index, extent: int) -> None:
            pieces = split_width(extent, target.lanes)
            sums = local(extent)
            initial = -math.inf if isinstance(spec.op, MaxPool2d) else 0.0
            for piece, lanes in pieces:
                sums.store(piece, constant(initial, lanes))
            _gather(spec, source, n, (i, j), start, pieces, sums)
            row = bind(ravel([n, i, j], [spec.images, height, width]))
            for piece, lanes in pieces:
                column = start + piece
                result = sums.load(piece, lanes)
                if not isinstance(spec.op, MaxPool2d | AvgPool2dGrad):
                    count = divisor(spec.window, spec.op.count_include_pad, i, j)
                    result = result / broadcast(count, lanes)
                finish(spec.epilogue, pointers, result, Place(row * spec.channels + column, row, column))

        with serial(lo, hi) as task, _share(task, spec.images * height, spec.tasks) as line:
            n, i = unravel(line, [spec.images, height])
            with serial(0, width) as j:
                _blocks(spec.channels, target, lambda start, extent: block(n, i, j, start, extent))

    return build_kernel(spec.arguments, body)


def _gather(
    spec: PoolSpec,
    source: Pointer,
    n: Index,
    at: tuple[Index, Index],
    start: Index,
    pieces: Sequence[tuple[int, int]],
    sums: Pointer,
) -> None:
    """Combine all taps of one position into `sums`."""
    window = spec.window
    with loops(*window.kernel) as (ky, kx):
        if isinstance(spec.op, AvgPool2dGrad):
            y, x, conditions = reader(window, *at, ky, kx)
        else:
            y, x = read_position(window, 0, at[0], ky), read_position(window, 1, at[1], kx)
            conditions = inside_input(window, y, x)
        with where(conditions):
            offset = bind(ravel([n, y, x], [spec.images, *spec.source_size]) * spec.channels + start)
            if isinstance(spec.op, AvgPool2dGrad):
                count = bind(divisor(window, spec.op.count_include_pad, y, x))
            for piece, lanes in pieces:
                value = source.load(offset + piece, lanes)
                if isinstance(spec.op, MaxPool2d):
                    sums.store(piece, larger(sums.load(piece, lanes), value))
                    continue
                if isinstance(spec.op, AvgPool2dGrad):
                    value = value / broadcast(count, lanes)
                sums.store(piece, sums.load(piece, lanes) + value)


def emit_max_pool_grad(spec: MaxPoolGradSpec, target: Target) -> PrimFunc:
    """dy goes to the first tap, in row-major order, that equals the maximum; for later taps it is 0."""
    window, channels = spec.window, spec.channels
    height, width = window.size

    def plane(pointers: Sequence[Pointer], zero: Expr, n: Index, start: Index, extent: int) -> None:
        dy, x, y, dx = pointers
        pieces = split_width(extent, target.lanes)
        if not spec.windows_tile_the_input:
            with loops(height, width) as (i, j):
                for piece, lanes in pieces:
                    dx.store(
                        ravel([n, i, j], [spec.images, height, width]) * channels + start + piece,
                        broadcast(zero, lanes),
                    )
        left = local(extent)
        with loops(*window.output) as (oy, ox):
            pooled = bind(ravel([n, oy, ox], [spec.images, *window.output]) * channels + start)
            for piece, lanes in pieces:
                left.store(piece, dy.load(pooled + piece, lanes))
            with loops(*window.kernel) as (ky, kx):
                iy, ix = read_position(window, 0, oy, ky), read_position(window, 1, ox, kx)
                with where(inside_input(window, iy, ix)):
                    place = bind(ravel([n, iy, ix], [spec.images, height, width]) * channels + start)
                    for piece, lanes in pieces:
                        hit = x.load(place + piece, lanes) == y.load(pooled + piece, lanes)
                        given = select(hit, left.load(piece, lanes), constant(0.0, lanes))
                        if not spec.windows_tile_the_input:
                            given = dx.load(place + piece, lanes) + given
                        dx.store(place + piece, given)
                        left.store(piece, select(hit, constant(0.0, lanes), left.load(piece, lanes)))

    def body(dy: Pointer, x: Pointer, y: Pointer, dx: Pointer, lo: Expr, hi: Expr) -> None:
        block = BLOCK_VECTORS * target.lanes
        full, rest = divmod(channels, block)
        pointers = (dy, x, y, dx)
        with serial(lo, hi) as task:
            zero = bind(fill_value(task))
            if full:
                with _share(task, spec.images * full, spec.tasks) as unit:
                    plane(pointers, zero, quotient(unit, full), remainder(unit, full) * block, block)
            if rest:
                with _share(task, spec.images, spec.tasks) as n:
                    plane(pointers, zero, n, full * block, rest)

    return build_kernel(spec.arguments, body)


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
