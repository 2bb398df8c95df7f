"""Products that are summed over rows (`gemm.GemmReduceSpec`), the gradients of weights: the rows of a tile, which are
depths of the forward product, and how many rows are summed in registers before the sums go to memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgec.backends.base import Target
from edgec.backends.tvm.tiling import even_split, reduce_block, tile_rows, usual_heights, vectors_of
from edgec.backends.tvm.tuning.machine import machine_of
from edgec.backends.tvm.tuning.problem import class_of_shapes

_BLOCKS = (1024, 512, 256, 128, 64)  # rows
# Up to so many rows go in one block: sums that never wait need no memory, which is worth more than a near panel.
_FEW_ROWS = 384
_LINE = 64  # bytes
_FEWER = (0, 2, 4)
_TILE_CYCLES = 12.0


@dataclass(frozen=True)
class SumTiles:
    """A register tile has up to `rows` depths; some `block_rows` rows are summed in it."""

    rows: int
    block_rows: int


@dataclass(frozen=True)
class SumProblem:
    """[depth, columns] sums over `lines` lines of `rows` each; columns in panels of `width`. `steps` and `operands` of
    the epilogue: an update of the weight.
    """

    kind: ClassVar[str] = "sum"
    parameters: ClassVar[type] = SumTiles

    lines: int
    rows: int
    taps: int
    depth: int
    columns: int
    width: int
    steps: int
    operands: int

    def shape(self) -> dict[str, int]:
        return class_of_shapes(self, ("width", "operands"))

    def candidates(self, target: Target) -> tuple[SumTiles, ...]:
        most = tile_rows(self.width, target)
        usual = usual_heights(self.depth, most, vectors_of(self.width, target.lanes))
        heights = dict.fromkeys((*usual, *(max(1, most - fewer) for fewer in _FEWER)))
        near = self._usual_block(target)
        blocks = (near, *(block for block in _BLOCKS if block != near))
        return tuple(SumTiles(height, block) for block in blocks for height in heights)

    def _usual_block(self, target: Target) -> int:
        """The most rows that stay near while the tiles of a panel go by: the panel's columns of each, which every tile
        reads, and a line of its depths, of which several tiles read a part.
        """
        if self.lines * self.rows <= _FEW_ROWS:
            return _BLOCKS[1]
        most = machine_of(target).near * 3 // 4 // (4 * self.width + _LINE)
        return next((block for block in _BLOCKS if block <= most), _BLOCKS[-1])

    def cycles(self, parameters: SumTiles, target: Target) -> float:
        machine, rows = machine_of(target), self.lines * self.rows
        block = reduce_block(1, rows, parameters.block_rows)
        panels, tail = divmod(self.columns, self.width)
        busy, moved = self._panel(self.width, parameters.rows, block, target)
        busy, moved = panels * busy, panels * moved
        if tail:
            more = self._panel(tail, tile_rows(tail, target), block, target)
            busy, moved = busy + more[0], moved + more[1]
        # The rows of a block by all depths are read for each panel: from memory, if they are more than a cache holds.
        times = panels + bool(tail) if 4 * self.taps * self.depth * block > machine.far // 2 else 1
        beyond = 4 * rows * (self.columns + times * self.taps * self.depth)
        waits = max(moved / machine.far_bytes, beyond / machine.memory_bytes)
        return max(busy, waits) + 0.1 * min(busy, waits)

    def _panel(self, width: int, largest: int, block: int, target: Target) -> tuple[float, float]:
        """Cycles of computing, and bytes that come from the far cache."""
        machine, vectors = machine_of(target), vectors_of(width, target.lanes)
        height, taller, shorter = even_split(self.depth, largest)
        rows, tiles = self.lines * self.rows, self.taps * (taller + shorter)
        blocks, busy = -(-rows // block), 0.0
        for count, own in ((taller, height), (shorter, height - 1)):
            sums = own * vectors
            step = max(sums / machine.multiply_adds, (own + vectors) / machine.loads, machine.latency)
            # Between blocks sums are read and written; after the last comes the epilogue.
            between = blocks * (_TILE_CYCLES + 2 * sums / machine.multiply_adds)
            after = sums * (self.steps + self.operands) / machine.multiply_adds
            busy += self.taps * count * (rows * step + between + after)
        # The rows of a block by a panel's columns are read for each tile, and stay near if there is room.
        times = tiles if (4 * width + _LINE) * block > machine.near else 1
        return busy, 4 * rows * (width * times + self.taps * self.depth)
