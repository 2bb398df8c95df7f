"""Products with the depth innermost (`gemm.GemmSpec`): the register tile, and the rows that meet all panels in turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgec.backends.base import Target
from edgec.backends.tvm.tiling import (
    even_split,
    interleaved_sums,
    multiplies_by_element,
    panel_width,
    tile_rows,
    usual_heights,
    vectors_of,
)
from edgec.backends.tvm.tuning.machine import machine_of
from edgec.backends.tvm.tuning.problem import class_of_shapes

_BLOCKS = (96, 48, 192, 384)  # rows
_FEWER = (0, 1, 2, 4, 6)  # rows of a tile less than the registers hold
_TILE_CYCLES = 12.0  # addresses, the first loads and the last multiply-adds of a tile


@dataclass(frozen=True)
class ProductTiles:
    """A register tile has up to `rows` rows of `width` columns; some `block_rows` rows go through all panels before the
    next.
    """

    width: int
    rows: int
    block_rows: int


@dataclass(frozen=True)
class ProductProblem:
    """`lines` lines of `rows` each, by [depth, columns], `batch` times. The right matrix lies in panels of `width`, or
    is read or packed for this product alone: then `width` is 0, and free. `steps` are elementwise operations on each
    result, `operands` the vectors read and written for it.
    """

    kind: ClassVar[str] = "product"
    parameters: ClassVar[type] = ProductTiles

    lines: int
    rows: int
    depth: int
    columns: int
    batch: int
    width: int
    steps: int
    operands: int

    def shape(self) -> dict[str, int]:
        return class_of_shapes(self, ("width", "operands"))

    def candidates(self, target: Target) -> tuple[ProductTiles, ...]:
        widths = (self.width,)
        if not self.width:
            usual = panel_width(self.columns, target)
            others = (w for w in (target.lanes, 3 * target.lanes) if w <= self.columns and w != usual)
            # Few rows take less time than the packing of their right matrix, of which nothing is known here.
            widths = (usual, *(others if self.lines * self.rows >= tile_rows(usual, target) else ()))
        return tuple(
            ProductTiles(width, rows, block)
            for width in widths
            for block in _BLOCKS
            for rows in self._heights(width, target)
        )

    def _heights(self, width: int, target: Target) -> tuple[int, ...]:
        most = tile_rows(width, target)
        usual = usual_heights(self.rows, most, vectors_of(width, target.lanes))
        return tuple(dict.fromkeys((*usual, *(max(1, most - fewer) for fewer in _FEWER))))

    def cycles(self, parameters: ProductTiles, target: Target) -> float:
        panels, tail = divmod(self.columns, parameters.width)
        least = self._panels(parameters.width, panels, parameters.rows, parameters.block_rows, target)
        if tail:
            least += self._panels(tail, 1, tile_rows(tail, target), parameters.block_rows, target)
        return least * self.batch

    def _panels(self, width: int, count: int, largest: int, block: int, target: Target) -> float:
        machine, vectors = machine_of(target), vectors_of(width, target.lanes)
        height, taller, shorter = even_split(self.rows, largest)
        busy = taller * self._tile(height, vectors, target)
        if shorter:
            busy += shorter * self._tile(height - 1, vectors, target)
        busy *= self.lines * count
        # A panel comes from the far cache once for a block of rows where it stays near while tiles go by, else for
        # each tile; the rows of a block for each panel, unless they stay near.
        rows = self.lines * self.rows
        panel, own = 4 * self.depth * width, 4 * self.depth * min(block, rows)
        times = -(-rows // (block if panel <= machine.near // 2 else height))
        moved = count * panel * times + (count if own > machine.near // 2 else 1) * 4 * rows * self.depth
        # Streams are fetched ahead while tiles compute, not quite for nothing.
        waits = moved / machine.far_bytes
        return max(busy, waits) + 0.1 * min(busy, waits)

    def _tile(self, height: int, vectors: int, target: Target) -> float:
        machine, sums = machine_of(target), height * vectors
        scalars = height / target.lanes if multiplies_by_element(target) else height
        chain = machine.latency / interleaved_sums(self.depth, height, vectors)
        step = max(sums / machine.multiply_adds, (scalars + vectors) / machine.loads, chain)
        after = sums * (self.operands + self.steps) / machine.multiply_adds
        return self.depth * step + after + _TILE_CYCLES
