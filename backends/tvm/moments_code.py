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
from edgec.backends.tvm.ranges_code import greatest, least, rows_of
from edgec.backends.tvm.reductions import BLOCK_VECTORS
from edgec.backends.tvm.row_sums_code import Pieces, Sums, row_sums
from edgec.backends.tvm.tails import MomentParts
from edgec.backends.tvm.tiling import column_block


def emit_part_moments(spec: PartMomentsSpec, target: Target) -> PrimFunc:
    of = spec.of

    def body(x: Pointer, parts: Pointer, lo: Expr, hi: Expr) -> None:
        size = column_block(of.channels, target, BLOCK_VECTORS)
        whole, rest = divmod(of.channels, size)
        with serial(lo, hi) as block:
            if whole:
                with serial(0, whole) as column:
                    add_moments(of, x, parts, block, column * size, split_width(size, target.lanes), opaque_zero(lo))
            if rest:
                add_moments(of, x, parts, block, whole * size, split_width(rest, target.lanes), opaque_zero(lo))

    return build_kernel(spec.arguments, body)


def emit_merge_moments(spec: MergeMomentsSpec, target: Target) -> PrimFunc:
    """A task is a block of channels."""

    def body(parts: Pointer, *others: Pointer | Expr) -> None:
        *tensors, lo, hi = others
        size = column_block(spec.of.channels, target, BLOCK_VECTORS)
        whole, rest = divmod(spec.of.channels, size)
        if whole:
            with serial(lo, T.min(hi, whole)) as block:
                _merge(spec, parts, tensors, block * size, split_width(size, target.lanes), opaque_zero(lo))
        if rest:
            with when(hi > whole):
                _merge(spec, parts, tensors, whole * size, split_width(rest, target.lanes), opaque_zero(lo))

    return build_kernel(spec.arguments, body)


def add_moments(
    of: MomentParts, x: Pointer, parts: Pointer, block: Index, start: Index, pieces: Pieces, zero: Expr
) -> None:
    """The parts of a block of rows, by channels from `start` on."""

    def part(number: Index, _: Index, first: Index, count: Index) -> None:
        base = first * of.channels + start

        def loaded(row: Index, piece: int) -> Expr:
            channel, lanes = pieces[piece]
            return x.load(base + row * of.channels + channel, lanes)

        def sums(term: Callable[[Index, int], Expr]) -> list[Expr]:
            return row_sums(count, of.blocks.most_rows, pieces, (term,), zero)[0]

        means = [
            bind(sum_ / broadcast(_float(count), lanes)) for sum_, (_, lanes) in zip(sums(loaded), pieces, strict=True)
        ]
        squares = sums(lambda row, piece: squared(loaded(row, piece) - means[piece]))
        at = number * of.channels + start
        for (channel, _), mean, square in zip(pieces, means, squares, strict=True):
            parts.store(at + channel, mean)
            parts.store(at + of.parts * of.channels + channel, square)

    _each_part(of, block, part)


def _each_part(of: MomentParts, block: Index, body: Callable[[Index, Index, Index, Index], None]) -> None:
    """`body(part, image, first row, rows)` for what a block has of each image."""
    first, last = rows_of(of.blocks, block)
    if not of.crossing:
        pieces = of.rows // of.blocks.block_rows if of.images > 1 else of.blocks.count  # of an image
        body(block, block // pieces, first, of.blocks.block_rows or bind(last - first))
        return
    first, last = (bind(row) if isinstance(row, Expr) else row for row in (first, last))
    with serial(first // of.rows, (last - 1) // of.rows + 1) as image:
        start, stop = bind(greatest(first, image * of.rows)), least(last, (image + 1) * of.rows)
        body(block + image, image, start, bind(stop - start))


def _merge(
    spec: MergeMomentsSpec, parts: Pointer, tensors: Sequence[Pointer], start: Index, pieces: Pieces, zero: Expr
) -> None:
    """A block of channels from `start` on of all parts: of the mean, then of the squares around it."""
    of = spec.of
    *weights, mean_out, variance_out = tensors

    def total(term: Callable[[int, Index, Expr], Expr]) -> list[Expr]:
        """For every vector, the weighted mean over images of the sum over parts of `term(its number, part, rows)`."""
        sums = Sums([lanes for _, lanes in pieces], zero)

        def add(part: Index, image: Index, _: Index, count: Index) -> None:
            rows = bind(_float(count))
            share = bind(weights[0].load(image) * constant(1.0 / of.rows)) if weights else constant(1.0 / of.rows)

            def add_all() -> None:
                for number, (_, lanes) in enumerate(pieces):
                    sums.add(number, broadcast(share, lanes) * term(number, part, broadcast(rows, lanes)))

            if not weights:
                add_all()
                return
            with when(share != constant(0.0)):  # what weighs nothing may hold anything
                add_all()

        sums.loop(of.blocks.count, of.blocks.count, lambda block: _each_part(of, block, add))
        return sums.results()

    def load(table: int, number: int, part: Index) -> Expr:
        channel, lanes = pieces[number]
        return parts.load((table * of.parts + part) * of.channels + start + channel, lanes)

    means = [bind(mean) for mean in total(lambda number, part, rows: load(0, number, part) * rows)]

    def squares_around(number: int, part: Index, rows: Expr) -> Expr:
        return load(1, number, part) + squared(load(0, number, part) - means[number]) * rows

    for (channel, _), mean, variance in zip(pieces, means, total(squares_around), strict=True):
        mean_out.store(start + channel, mean)
        variance_out.store(start + channel, variance)


def _float(count: Index) -> Expr:
    return constant(float(count)) if isinstance(count, int) else cast(count, "float32")
