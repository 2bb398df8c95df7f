"""Convolutions of 3 x 3 and stride 1 with fewer multiplications: Winograd's minimal filtering F(m x m, 3 x 3), after
Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016). Loads no tvm.

An output tile of m x m is A^T [ (G w G^T) * (B^T x B) ] A, summed over channels before the last transform: a product
of tiles by channels with channels by outputs for each of the (m + 2)^2 positions, 2.25 (m = 2) or 4 times (m = 4)
fewer multiply-adds. The matrices evaluate polynomials at points (Toom and Cook). Those of m = 4 are 0, +-1/sqrt(2),
+-sqrt(2) and infinity: powers of the usual 1 and 2 grow apart, and lose three more bits of a sum of many channels.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from edgec.backends.base import Argument
from edgec.backends.tvm.epilogue import Epilogue
from edgec.graph.types import DType
from edgec.runtime.abi import Access

_TAPS = 3
# Positions are stored to one after another: a power of 2 apart, they would share a few lines of the nearest cache.
_PADDING = 16
_POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, math.sqrt(0.5), -math.sqrt(0.5), math.sqrt(2), -math.sqrt(2))}
TILES = tuple(_POINTS)


@dataclass(frozen=True)
class Transforms:
    """B^T [n, n] of inputs, G [n, 3] of filters and A^T [m, n] of products, for one axis. After the first, rows of B^T
    and G and columns of A^T stand in pairs, of points that differ in sign; the last is infinity's.
    """

    inputs: np.ndarray
    filters: np.ndarray
    products: np.ndarray


@functools.cache
def transforms(tile: int) -> Transforms:
    """Of F(tile, 3)."""
    points = _POINTS[tile]
    count = tile + _TAPS - 1
    inputs, filters, products = np.zeros((count, count)), np.zeros((count, _TAPS)), np.zeros((tile, count))
    for i, point in enumerate(points):
        others = [other for other in points if other is not point]
        inputs[i, : count - 1] = np.poly(others)[::-1]
        filters[i] = point ** np.arange(_TAPS) / np.prod([point - other for other in others])
        products[:, i] = point ** np.arange(tile)
    inputs[-1] = np.poly(points)[::-1]
    filters[-1, -1] = products[-1, -1] = 1
    return Transforms(inputs, filters, products)


@dataclass(frozen=True)
class WinogradFilterSpec:
    """Filters in panels, [columns / width][3][3][channels][width], transformed to those of a product for each position,
    [columns / width][(tile + 2)^2][depth][width], where `depth` is the channels and a row that stays unused.

    Tasks: panels.
    """

    tile: int
    channels: int
    columns: int
    width: int

    @property
    def stem(self) -> str:
        return "f32_winograd_filter"

    @property
    def positions(self) -> int:
        return (self.tile + _TAPS - 1) ** 2

    @property
    def depth(self) -> int:
        return self.channels + 1

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return (
            Argument(DType.F32, _TAPS**2 * self.channels * self.columns, Access.READ),
            Argument(DType.F32, self.positions * self.depth * self.columns, Access.WRITE),
        )

    @property
    def tasks(self) -> int:
        return -(-self.columns // self.width)


@dataclass(frozen=True)
class WinogradSpec:
    """A convolution of x NHWC [images, *size, channels], with `pads` (top, left) zeros before it, to y NHWC [images,
    *out, columns], by filters as `filters` transforms them.

    Tiles go by `blocks`, each with all of its transformed inputs in the caches. Arguments: x, filters, those of the
    epilogue, and for each task a block's inputs [position, tile, channel] and products [position, tile, column of a
    panel].
    """

    filters: WinogradFilterSpec
    images: int
    size: tuple[int, int]
    pads: tuple[int, int]
    out: tuple[int, int]
    epilogue: Epilogue
    tile_rows: int
    tail_rows: int
    blocks: int
    tasks: int

    @property
    def stem(self) -> str:
        return f"f32_winograd{self.filters.tile}{self.epilogue.label}"

    @property
    def span(self) -> int:
        """Pixels of an input tile along one axis."""
        return self.filters.tile + _TAPS - 1

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles of an image along y and x."""
        return -(-self.out[0] // self.filters.tile), -(-self.out[1] // self.filters.tile)

    @property
    def tiles(self) -> int:
        return self.images * math.prod(self.grid)

    @property
    def block(self) -> int:
        """Tiles of the largest block."""
        return -(-self.tiles // self.blocks)

    @property
    def input_stride(self) -> int:
        """Elements between the inputs of two positions."""
        return self.block * self.filters.channels + _PADDING

    @property
    def product_stride(self) -> int:
        return self.block * self.filters.width + _PADDING

    @property
    def arguments(self) -> tuple[Argument, ...]:
        positions = self.tasks * self.filters.positions
        return (
            Argument(DType.F32, self.images * math.prod(self.size) * self.filters.channels, Access.READ),
            Argument(DType.F32, self.filters.arguments[1].elements, Access.READ),
            *self.epilogue.arguments,
            Argument(DType.F32, positions * self.input_stride, Access.READ_WRITE),
            Argument(DType.F32, positions * self.product_stride, Access.READ_WRITE),
        )
