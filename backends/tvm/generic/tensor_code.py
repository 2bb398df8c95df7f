"""Tensors inside a generic kernel: memory addressed by logical index, wherever a storage puts the elements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgec.backends.tvm._tvm import Expr, T, tirx
from edgec.backends.tvm.builder import Index, Pointer, bind
from edgec.backends.tvm.conversions import narrow, widen
from edgec.graph.types import DType, TensorType
from edgec.runtime.abi import Storage


@dataclass(frozen=True)
class Tensor:
    """A tensor of `type` that lies in `storage` behind `pointer`."""

    pointer: Pointer
    type: TensorType
    storage: Storage

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    def load(self, index: Sequence[Index]) -> Expr:
        """One element, as kernels compute with it."""
        return widen(self.pointer.load(offset(self.storage, self.shape, index)), self.dtype)

    def load_broadcast(self, index: Sequence[Index]) -> Expr:
        """The element that numpy's broadcasting pairs with `index` of a tensor of equal or higher rank."""
        own = index[len(index) - len(self.shape) :]
        return self.load([0 if n == 1 else i for i, n in zip(own, self.shape, strict=True)])

    def store(self, index: Sequence[Index], value: Expr) -> None:
        self.pointer.store(offset(self.storage, self.shape, index), narrow(value, self.dtype))


def offset(storage: Storage, shape: tuple[int, ...], index: Sequence[Index]) -> Index:
    """Element offset of the logical `index` of a tensor of `shape`, as `Storage` defines it."""
    if storage.dims != shape:
        index = unravel(ravel(index, shape), storage.dims)
    if not storage.dims:
        return 0
    extents = [storage.dims[axis] for axis in storage.perm]
    moved = [index[axis] for axis in storage.perm]
    columns, block = extents[-1], storage.block
    if not block or block >= columns:
        return ravel(moved, extents)
    outer, column = ravel(moved[:-1], extents[:-1]), moved[-1]
    panel = quotient(column, block)
    width = block if columns % block == 0 else T.min(block, columns - panel * block)
    return panel * (block * math.prod(extents[:-1])) + outer * width + remainder(column, block)


def ravel(index: Sequence[Index], shape: Sequence[int]) -> Index:
    """The row-major position of `index`."""
    position: Index = 0
    for i, n in zip(index, shape, strict=True):
        if n != 1:
            position = position * n + i
    return position


def unravel(position: Index, shape: Sequence[int]) -> list[Index]:
    """The inverse of `ravel`, for a position within `shape`."""
    index: list[Index] = []
    for axis in reversed(range(len(shape))):
        if math.prod(shape[:axis]) == 1:  # nothing is left to divide by
            return [0] * axis + [position, *index]
        index.insert(0, remainder(position, shape[axis]))
        position = quotient(position, shape[axis])
    return index


def bound_places(position: Index, extents: Sequence[int]) -> list[Index]:
    """`unravel`, each place with a name of its own."""
    return [place if isinstance(place, int) else bind(place) for place in unravel(position, extents)]


# Indices are never negative, so the division that truncates is exact; it is a single instruction or less.


def quotient(i: Index, n: int) -> Index:
    if n == 1:
        return i
    return i // n if isinstance(i, int) else tirx.truncdiv(i, n)


def remainder(i: Index, n: int) -> Index:
    if n == 1:
        return 0
    return i % n if isinstance(i, int) else tirx.truncmod(i, n)
