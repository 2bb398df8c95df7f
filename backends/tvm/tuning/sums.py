"""Products that are summed over rows (`gemm.GemmReduceSpec`), the gradients of weights: the rows of a tile, which are
depths of the forward product, and how many rows are summed in registers before the sums go to memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgec.backends.base import Target
from edgec.backends.tvm.tiling import even_split, tile_rows, vectors_of
from edgec.backends.tvm.tuning.machine import machine_of
from edgec.backends.tvm.tuning.problem import class_of_shapes

_BLOCKS = (256, 128, 512, 1024, 64)  # rows
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
        heights = dict.fromkeys(max(1, most - fewer) for fewer in _FEWER)
        return tuple(SumTiles(height, block) for block in _BLOCKS for height in heights)

    def cycles(self, parameters: SumTiles, target: Target) -> float:
        panels, tail = divmod(self.columns, self.width)
        least = panels * self._panel(self.width, parameters.rows, parameters.block_rows, target)
        return least + (self._panel(tail, tile_rows(tail, target), parameters.block_rows, target) if tail else 0.0)

    def _panel(self, width: int, largest: int, block: int, target: Target) -> float:
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
        own = 4 * width * min(block, rows)
        moved = 4 * rows * (width * (tiles if own > machine.near // 2 else 1) + self.taps * self.depth)
        waits = moved / machine.far_bytes
        return max(busy, waits) + 0.1 * min(busy, waits)
