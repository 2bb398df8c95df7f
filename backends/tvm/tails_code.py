"""Code of a `Tail`: sums over a block of stored rows, as loops over what the nearest caches hold."""

from __future__ import annotations

from collections.abc import Sequence

from edgec.backends.base import Target
from edgec.backends.tvm._tvm import Expr
from edgec.backends.tvm.builder import Index, Pointer, bind, serial, split_width
from edgec.backends.tvm.epilogue import Epilogue
from edgec.backends.tvm.moments_code import add_moments
from edgec.backends.tvm.ranges_code import least, rows_of
from edgec.backends.tvm.reductions import BLOCK_VECTORS
from edgec.backends.tvm.row_sums_code import Pieces, row_sums
from edgec.backends.tvm.tails import MomentParts, NormGradParts, Tail


def read_afar(epilogue: Epilogue, tail: Tail | None) -> tuple[int, ...]:
    """The arguments behind a kernel's own that are read at each result's place, where a tail says that these are large:
    no processor foresees which lines a tile reads.
    """
    if tail is None or not isinstance(tail.sums, NormGradParts):
        return ()
    return *epilogue.read_in_full, len(epilogue.arguments)


def add_up(
    tail: Tail,
    pointers: Sequence[Pointer],
    block: Index,
    columns: tuple[Index, Index],
    fewest: int,
    target: Target,
    zero: Expr,
) -> None:
    """The sums of a block of rows, in these columns, of which there are at least `fewest`. `pointers` are those of the
    epilogue and the tail.
    """
    stored, own = pointers[tail.of], pointers[-len(tail.arguments) :]

    def some(start: Index, pieces: Pieces) -> None:
        match tail.sums:
            case MomentParts():
                add_moments(tail.sums, stored, *own, block, start, pieces, zero)
            case NormGradParts():
                _add_norm_grad(tail.sums, stored, own, block, start, pieces, zero)

    first, last = columns
    size = min(fewest, BLOCK_VECTORS * target.lanes)
    if isinstance(first, int) and isinstance(last, int) and last - first == size:
        some(first, split_width(size, target.lanes))
        return
    # The last columns once more rather than code for fewer of them.
    size -= size % target.lanes
    with serial(0, (last - first + (size - 1)) // size) as i:
        some(least(first + i * size, last - size), split_width(size, target.lanes))


def _add_norm_grad(
    of: NormGradParts, dy: Pointer, own: Sequence[Pointer], block: Index, start: Index, pieces: Pieces, zero: Expr
) -> None:
    x, mean, inv_std, *results = own
    first, last = rows_of(of.blocks, block)
    base = first * of.channels + start
    means = [bind(mean.load(start + at, lanes)) for at, lanes in pieces]

    def loaded(tensor: Pointer, row: Index, piece: int) -> Expr:
        at, lanes = pieces[piece]
        return tensor.load(base + row * of.channels + at, lanes)

    def product(row: Index, piece: int) -> Expr:
        return loaded(dy, row, piece) * (loaded(x, row, piece) - means[piece])

    def value(row: Index, piece: int) -> Expr:
        return loaded(dy, row, piece)

    rows = of.blocks.block_rows or last - first
    products, values = row_sums(rows, of.blocks.most_rows, pieces, (product, value), zero)
    for (at, lanes), product_, value_ in zip(pieces, products, values, strict=True):
        place = block * of.channels + start + at
        results[0].store(place, product_ * inv_std.load(start + at, lanes))
        results[1].store(place, value_)
