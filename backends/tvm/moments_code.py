"""Code of `PartMomentsSpec` and `MergeMomentsSpec`: some vectors of channels at a time, in two passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgec.backends.base import Target
from edgec.backends.tvm._tvm import Expr, PrimFunc, T
from edgec.backends.tvm.builder import (
    Index,
    Pointer,
    bind,
    broadcast,
    build_kernel,
    cast,
    constant,
    opaque_zero,
    serial,
    split_width,
    when,
)
from edgec.backends.tvm.functions import squared
from edgec.backends.tvm.moments import MergeMomentsSpec, PartMomentsSpec
from edgec.backends.tvm.reductions import BLOCK_VECTORS
from edgec.backends.tvm.reductions_code import Accumulators
from edgec.backends.tvm.tiling import column_block

Pieces = Sequence[tuple[int, int]]  # vectors of a block of channels: the first channel, lanes


def emit_part_moments(spec: PartMomentsSpec, target: Target) -> PrimFunc:
    def body(x: Pointer, parts: Pointer, lo: Expr, hi: Expr) -> None:
        size = column_block(spec.channels, target, BLOCK_VECTORS)
        whole, rest = divmod(spec.channels, size)
        with serial(lo, hi) as part:
            if whole:
                with serial(0, whole) as block:
                    _part(spec, x, parts, part, block * size, split_width(size, target.lanes), opaque_zero(lo))
            if rest:
                _part(spec, x, parts, part, whole * size, split_width(rest, target.lanes), opaque_zero(lo))

    return build_kernel(spec.arguments, body)


def emit_merge_moments(spec: MergeMomentsSpec, target: Target) -> PrimFunc:
    """A task is a block of channels."""

    def body(parts: Pointer, *others: Pointer | Expr) -> None:
        *tensors, lo, hi = others
        size = column_block(spec.parts.channels, target, BLOCK_VECTORS)
        whole, rest = divmod(spec.parts.channels, size)
        if whole:
            with serial(lo, T.min(hi, whole)) as block:
                _merge(spec, parts, tensors, block * size, split_width(size, target.lanes), opaque_zero(lo))
        if rest:
            with when(hi > whole):
                _merge(spec, parts, tensors, whole * size, split_width(rest, target.lanes), opaque_zero(lo))

    return build_kernel(spec.arguments, body)


def _part(
    spec: PartMomentsSpec,
    x: Pointer,
    parts: Pointer,
    part: Index,
    start: Index,
    pieces: Pieces,
    zero: Expr,
) -> None:
    """A block of channels from `start` on of one part."""
    image, piece = part // spec.pieces, part % spec.pieces
    first = (image * spec.rows + piece * spec.part_rows) * spec.channels + start
    uneven = spec.rows % spec.part_rows
    count = bind(T.min(spec.rows - piece * spec.part_rows, spec.part_rows)) if uneven else spec.part_rows
    copies = max(1, BLOCK_VECTORS // len(pieces))  # of each sum, for neighbouring rows: enough chains of additions

    def total(term: Callable[[int, Expr], Expr]) -> list[Expr]:
        """For every vector, the sum over rows of `term(its number, x)`."""
        sums = Accumulators.of_sums([lanes for _, lanes in pieces] * copies, spec.part_rows // copies, zero)

        def add(row: Index, copy: int) -> None:
            for number, (channel, lanes) in enumerate(pieces):
                loaded = x.load(first + row * spec.channels + channel, lanes)
                sums.add(copy * len(pieces) + number, term(number, loaded))

        def add_group(group: Index) -> None:
            for copy in range(copies):
                add(group * copies + copy, copy)

        groups, rest = count // copies, count % copies
        sums.loop(groups, add_group)
        if copies > 1:
            with serial(0, rest) as row:
                add(groups * copies + row, 0)
        return _over_copies(sums, pieces)

    def mean_of(sum_: Expr, lanes: int) -> Expr:
        number = cast(count, "float32") if uneven else constant(float(count))
        return bind(sum_ / broadcast(number, lanes))

    means = [mean_of(sum_, lanes) for sum_, (_, lanes) in zip(total(lambda _, x: x), pieces, strict=True)]
    squares = total(lambda number, x: squared(x - means[number]))
    at = part * spec.channels + start
    for (channel, _), mean, square in zip(pieces, means, squares, strict=True):
        parts.store(at + channel, mean)
        parts.store(at + spec.parts * spec.channels + channel, square)


def _merge(
    spec: MergeMomentsSpec,
    parts: Pointer,
    tensors: Sequence[Pointer],
    start: Index,
    pieces: Pieces,
    zero: Expr,
) -> None:
    """A block of channels from `start` on of all parts: of the mean, then of the squares around it."""
    of = spec.parts
    *weights, mean_out, variance_out = tensors
    full, rest = divmod(of.rows, of.part_rows)

    def total(term: Callable[[int, Index, int], Expr]) -> list[Expr]:
        """For every vector, the weighted mean over images of the sum over parts of `term(its number, part, rows)`."""
        sums = Accumulators.of_sums([lanes for _, lanes in pieces], of.parts, zero)

        def add(part: Index, share: Expr, rows: int) -> None:
            for number, (_, lanes) in enumerate(pieces):
                sums.add(number, broadcast(share, lanes) * term(number, part, rows))

        def add_image(image: Index, share: Expr) -> None:
            first = image * of.pieces
            sums.loop(full, lambda piece: add(first + piece, share, of.part_rows))
            if rest:
                add(first + full, share, rest)

        per_row = constant(1.0 / of.rows)
        if not weights:
            add_image(0, per_row)
        else:
            with serial(0, of.images + zero) as image:
                weight = bind(weights[0].load(image))
                with when(weight != constant(0.0)):  # what weighs nothing may hold anything
                    add_image(image, bind(weight * per_row))
        return _over_copies(sums, pieces)

    def load(table: int, number: int, part: Index) -> Expr:
        channel, lanes = pieces[number]
        return parts.load((table * of.parts + part) * of.channels + start + channel, lanes)

    def weighted_mean(number: int, part: Index, rows: int) -> Expr:
        return load(0, number, part) * constant(float(rows), pieces[number][1])

    means = [bind(mean) for mean in total(weighted_mean)]

    def squares_around(number: int, part: Index, rows: int) -> Expr:
        off = squared(load(0, number, part) - means[number])
        return load(1, number, part) + off * constant(float(rows), pieces[number][1])

    for (channel, _), mean, variance in zip(pieces, means, total(squares_around), strict=True):
        mean_out.store(start + channel, mean)
        variance_out.store(start + channel, variance)


def _over_copies(sums: Accumulators, pieces: Pieces) -> list[Expr]:
    cells = sums.results()
    totals = []
    for number, (_, lanes) in enumerate(pieces):
        copies = [cell.load(0, lanes) for cell in cells[number :: len(pieces)]]
        totals.append(bind(sum(copies[1:], copies[0])))
    return totals
