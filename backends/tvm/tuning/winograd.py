"""Frozen 3 x 3 convolutions of stride 1: the direct product (`products.py` has its tiles), or Winograd's filtering of
some tile (`winograd.WinogradSpec`), whose filters are transformed in every run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgec.backends.base import Target
from edgec.backends.tvm.tiling import vectors_of
from edgec.backends.tvm.tuning.machine import machine_of
from edgec.backends.tvm.tuning.problem import class_of_shapes
from edgec.backends.tvm.winograd import TILES

# Measured on AVX-512 and AVX2, 7 to 112 lines, 3 to 512 channels: cycles for each position of a tile and vector of
# channels, of a transform and of a filter's; some of the time hides in which filters leave the far cache.
_TRANSFORM, _FILTER, _SEEN = 2.5, 3.0, 0.6
_WORTH = 0.82  # of the direct product's time, at most: filtering takes memory
_FILTER_BYTES = 1 << 24  # of transformed filters, at most


@dataclass(frozen=True)
class WinogradTile:
    """Results along both axes that are made at a time; 0: the direct product."""

    tile: int


DIRECT = WinogradTile(0)


@dataclass(frozen=True)
class WinogradProblem:
    """`images` maps of `height` x `width` results, of so many `channels` to so many `columns`."""

    kind: ClassVar[str] = "winograd"
    parameters: ClassVar[type] = WinogradTile

    images: int
    height: int
    width: int
    channels: int
    columns: int

    def shape(self) -> dict[str, int]:
        return class_of_shapes(self)

    def candidates(self, target: Target) -> tuple[WinogradTile, ...]:
        fit = (tile for tile in TILES if self._filter_bytes(tile) <= _FILTER_BYTES)
        return (DIRECT, *map(WinogradTile, fit))

    def cycles(self, parameters: WinogradTile, target: Target) -> float:
        machine, tile = machine_of(target), parameters.tile
        sources, results = vectors_of(self.channels, target.lanes), vectors_of(self.columns, target.lanes)
        row = self.channels * results / machine.multiply_adds
        if parameters == DIRECT:
            return 9 * self.images * self.height * self.width * row
        tiles = self.tiles(tile)
        outside = max(0.0, 1 - machine.far / self._filter_bytes(tile))
        waits = _SEEN * outside * 4 * target.lanes / machine.memory_bytes
        transforms = _TRANSFORM * tiles * (sources + results) + (_FILTER + waits) * self.channels * results
        return (tile + 2) ** 2 * (tiles * row + transforms) / _WORTH

    def tiles(self, tile: int) -> int:
        return self.images * -(-self.height // tile) * -(-self.width // tile)

    def _filter_bytes(self, tile: int) -> int:
        return 4 * (tile + 2) ** 2 * self.channels * self.columns
