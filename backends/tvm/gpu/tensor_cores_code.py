"""Code of products on tensor cores.

While the warps of a group multiply one step of the depth, its items hold the elements of the next one in registers;
shared memory has two stages. Fragments are read from there one register at a time: rows of a stage lie so far apart
that the 32 items of a warp meet 32 banks (an operand whose neighbours in memory are neighbours in depth lies as rows of
depth, else as lines of rows or columns). Sums go through shared memory to where they are stored, as lines.

Registers of `mma.sync.m16n8k8`, by PTX ISA 8.5, 9.7.14.5.4: item = 4 * g + t holds left[g | g + 8][t | t + 4],
right[t | t + 4][g] and sums[g | g + 8][2 * t | 2 * t + 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgec.backends.base import Target
from edgec.backends.tvm._tvm import Expr, T
from edgec.backends.tvm.builder import (
    DeviceKernel,
    Index,
    Pointer,
    bind,
    constant,
    local,
    serial,
    shared,
    synchronise,
    when,
)
from edgec.backends.tvm.computation import Memory
from edgec.backends.tvm.generic.loops_code import where
from edgec.backends.tvm.generic.tensor_code import Tensor, unravel
from edgec.backends.tvm.gpu.parts_code import finish_part
from edgec.backends.tvm.gpu.products_code import Place, part_of_group, product_layout
from edgec.backends.tvm.gpu.tensor_cores import FRAGMENT, WARP, TensorCoreSpec

_ROWS, _COLUMNS, _DEPTH = FRAGMENT
_UNROLLED = 4  # results of an item that are finished together


@dataclass(frozen=True)
class _Operand:
    """One operand of a tile: `width` rows or columns from `first` of `extent`."""

    tensor: Tensor
    at: Place
    deep: bool
    width: int
    first: Index
    extent: int
    start: int  # in shared memory

    def cell(self, depth: int, place: Index, deeper: Index) -> Index:
        """Where an element lies in its stage, `depth` elements of depth in all."""
        return place * (depth + 4) + deeper if self.deep else deeper * (self.width + 8) + place

    def cells(self, depth: int) -> int:
        return self.width * (depth + 4) if self.deep else depth * (self.width + 8)


def emit_tensor_cores(spec: TensorCoreSpec, target: Target) -> DeviceKernel:
    view, tile = spec.view, spec.tile

    def body(*parameters: Pointer | Expr) -> None:
        *pointers, group, item = parameters

        def tensor(memory: Memory) -> Tensor:
            return Tensor(pointers[memory.argument], memory.type, memory.storage)

        layout = product_layout(spec, [tensor(operand) for operand in spec.computation.anchor.operands])
        own_part = part_of_group(spec, group)
        start, stop = own_part.start, own_part.stop
        left = _Operand(layout.left, layout.left_at, layout.deep_left, tile.rows, own_part.first_row, view.rows, 0)
        right = _Operand(
            layout.right,
            layout.right_at,
            layout.deep_right,
            tile.columns,
            own_part.first_column,
            view.columns,
            left.cells(tile.depth),
        )
        stage = left.cells(tile.depth) + right.cells(tile.depth)
        cells = shared(max(2 * stage, tile.slices * tile.rows * tile.columns))
        ahead = [local(tile.depth * operand.width // tile.threads) for operand in (left, right)]
        down, across = tile.rows // tile.down // _ROWS, tile.columns // tile.across // _COLUMNS
        sums = local(down * across * 4)
        for i in range(down * across * 4):
            sums.store(i, constant(0.0))

        def fetch(step: Index) -> None:
            for operand, registers in zip((left, right), ahead, strict=True):
                _fetch(spec, operand, own_part.batch, bind(step * tile.depth), item, registers)

        def stash(second: Index) -> None:
            for operand, registers in zip((left, right), ahead, strict=True):
                for turn in range(tile.depth * operand.width // tile.threads):
                    place, deeper = _element(operand, tile.depth, tile.threads, item, turn)
                    cell = second * stage + operand.start + operand.cell(tile.depth, place, deeper)
                    cells.store(cell, _rounded(registers.load(turn)))

        fetch(start)
        stash(0)
        synchronise()
        with serial(start, stop) as step:
            second = bind((step - start) % 2)
            with when(step + 1 < stop):
                fetch(step + 1)
            _multiply(spec, left, right, cells, second * stage, sums, item)
            stash(1 - second)
            synchronise()
        _spread(spec, cells, sums, item)
        synchronise()

        def finish(position: Index) -> None:
            row = bind(own_part.first_row + position // tile.columns)
            column = bind(own_part.first_column + position % tile.columns)
            with where(own_part.inside(row, column)):
                value = cells.load(position)
                for i in range(1, tile.slices):
                    value = value + cells.load(position + i * tile.rows * tile.columns)
                finish_part(spec, tensor, own_part.part, layout.result(own_part.batch, row, column), bind(value))

        turns = tile.rows * tile.columns // tile.threads
        with serial(0, turns // _UNROLLED) as turn:
            for i in range(_UNROLLED):
                finish(bind((turn * _UNROLLED + i) * tile.threads + item))

    return DeviceKernel(spec.arguments, spec.groups, spec.threads, body)


def _element(operand: _Operand, depth: int, threads: int, item: Expr, turn: int) -> tuple[Index, Index]:
    """Which row or column, and which of the depth, an item brings in a turn: neighbours lie so in memory."""
    inner = depth if operand.deep else operand.width
    outer, inner_place = bind(item // inner + turn * (threads // inner)), bind(item % inner)
    return (outer, inner_place) if operand.deep else (inner_place, outer)


def _fetch(spec: TensorCoreSpec, operand: _Operand, batch: Index, depth: Index, item: Expr, registers: Pointer) -> None:
    """What the item brings of one step; zeros where there is nothing."""
    tile, depths = spec.tile, spec.view.depth
    for turn in range(tile.depth * operand.width // tile.threads):
        i, k = _element(operand, tile.depth, tile.threads, item, turn)
        place, deeper = bind(operand.first + i), bind(depth + k)
        registers.store(turn, constant(0.0))
        conditions = [place < operand.extent] if operand.extent % operand.width else []
        conditions += [deeper < depths] if depths % tile.depth else []
        with where(conditions):
            index, tests = operand.at(batch, place, deeper)
            with where(tests):
                registers.store(turn, operand.tensor.load(index))


def _warp(spec: TensorCoreSpec, item: Expr) -> tuple[Index, Index, Index, Expr, Expr]:
    """The slice of an item's warp, its first row and column in the tile, and the item's g and t."""
    tile = spec.tile
    warp = bind(item // WARP)
    own, row, column = unravel(warp, (tile.slices, tile.down, tile.across))
    rows, columns = tile.rows // tile.down, tile.columns // tile.across
    return own, row * rows, column * columns, bind(item % WARP // 4), bind(item % 4)


def _multiply(
    spec: TensorCoreSpec, left: _Operand, right: _Operand, cells: Pointer, stage: Index, sums: Pointer, item: Expr
) -> None:
    tile = spec.tile
    own, row, column, g, t = _warp(spec, item)
    down, across = tile.rows // tile.down // _ROWS, tile.columns // tile.across // _COLUMNS
    share = tile.depth // tile.slices

    def reader(operand: _Operand) -> Callable[[Index, Index], Expr]:
        return lambda place, deeper: bind(cells.load(stage + operand.start + operand.cell(tile.depth, place, deeper)))

    at_left, at_right = reader(left), reader(right)
    for k in range(0, share, _DEPTH):
        deeper = own * share + k + t
        lefts = [[at_left(row + i * _ROWS + g + r, deeper + d) for d in (0, 4) for r in (0, 8)] for i in range(down)]
        rights = [[at_right(column + j * _COLUMNS + g, deeper + d) for d in (0, 4)] for j in range(across)]
        for i, a in enumerate(lefts):
            for j, b in enumerate(rights):
                place = sums.address((i * across + j) * 4)
                T.evaluate(T.call_extern("void", "multiply_tf32", place, *a, *b))


def _spread(spec: TensorCoreSpec, cells: Pointer, sums: Pointer, item: Expr) -> None:
    """All sums to shared memory, as slices of rows of columns."""
    tile = spec.tile
    own, row, column, g, t = _warp(spec, item)
    down, across = tile.rows // tile.down // _ROWS, tile.columns // tile.across // _COLUMNS
    for i in range(down):
        for j in range(across):
            for r in (0, 1):
                for c in (0, 1):
                    y, x = row + i * _ROWS + g + 8 * r, column + j * _COLUMNS + 2 * t + c
                    place = (own * tile.rows + y) * tile.columns + x
                    cells.store(place, sums.load((i * across + j) * 4 + 2 * r + c))


def _rounded(value: Expr) -> Expr:
    """To TF32, ties away from zero."""
    return T.call_extern("float32", "round_tf32", value)
