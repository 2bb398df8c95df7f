"""Products on the tensor cores of CUDA devices: operands rounded to TF32, sums in f32.

Only for targets that allow TF32 (`cuda:sm_90+tf32`), as torch's `allow_tf32`: an operand keeps 10 bits of its mantissa,
which moves a result by some 3e-4 of its size. The same `View` as of `products`, in tiles that warps share out. Nothing
here loads tvm.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from edgec.backends.base import Group, Lowering, Target
from edgec.backends.tvm.computation import bind_computation
from edgec.backends.tvm.gpu.parts import lower_in_parts
from edgec.backends.tvm.gpu.products import TiledSpec, View, tiled_view
from edgec.graph.ir import Value
from edgec.runtime.abi import MAX_KERNEL_ARGS, Storage

WARP = 32
FRAGMENT = (16, 8, 8)  # rows, columns and depth of one instruction: mma.sync.m16n8k8
MAX_SHARED = 48 << 10  # bytes that a group may have without asking


@dataclass(frozen=True)
class WarpTile:
    """`rows` x `columns` of the result, `depth` at a time, by `down` x `across` warps; of the depth `slices` sets of
    such warps have each their part, and their sums are added in the end.
    """

    rows: int
    columns: int
    depth: int
    down: int
    across: int
    slices: int = 1

    @property
    def threads(self) -> int:
        return WARP * self.down * self.across * self.slices

    @property
    def shared(self) -> int:
        """Elements: two stages of both operands, where afterwards the sums are."""
        return max(2 * self.depth * (self.rows + self.columns + 16), self.slices * self.rows * self.columns)


# By warps that share a tile: many for long depths, whose loads are then on their way together.
TILES = (
    WarpTile(128, 64, 16, 4, 2),
    WarpTile(64, 128, 16, 2, 4),
    WarpTile(64, 64, 32, 2, 2, 2),
    WarpTile(64, 32, 32, 2, 1, 4),
    WarpTile(32, 64, 32, 1, 2, 4),
    WarpTile(32, 128, 32, 1, 4, 2),
    WarpTile(32, 32, 64, 1, 1, 8),
    WarpTile(16, 128, 32, 1, 4, 2),
    WarpTile(16, 64, 32, 1, 2, 4),
)
_MULTIPROCESSORS = {80: 108, 86: 84, 87: 16, 89: 128, 90: 132}
_PARTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


@dataclass(frozen=True)
class TensorCoreSpec(TiledSpec):
    tile: WarpTile

    @property
    def stem(self) -> str:
        return f"{self.what}_tf32_{self.tile.rows}x{self.tile.columns}"

    def narrowed(self, most: int) -> Self:
        return self  # groups of CUDA are as large as asked for


def lower_tensor_cores(
    group: Group, storage: Mapping[Value, Storage], alias: Mapping[Value, Value], target: Target
) -> Lowering | None:
    """Tiles of warps, for an f32 product of some size on a target that allows TF32; None for others."""
    view = tiled_view(group.anchor) if target.tf32 else None
    if view is None:
        return None
    bound = bind_computation(group, storage, alias)
    can_part = len(bound.operands) < MAX_KERNEL_ARGS
    tile, parts = choose_tile(view, _MULTIPROCESSORS[target.capability], can_part)
    return lower_in_parts(TensorCoreSpec(bound.computation, view, tile, parts), bound, group.anchor)


def choose_tile(view: View, multiprocessors: int, can_part: bool) -> tuple[WarpTile, int]:
    """The tile, and the parts of the depth, that should take least time."""
    return min(_choices(view, can_part), key=lambda choice: _microseconds(view, *choice, multiprocessors))


def _choices(view: View, can_part: bool) -> Iterator[tuple[WarpTile, int]]:
    for tile in TILES:
        steps = -(-view.depth // tile.depth)
        for parts in _PARTS if can_part else (1,):
            each = -(-steps // parts)
            if parts == 1 or (steps // parts >= 2 and -(-steps // each) == parts):  # no part is empty
                yield tile, parts


# Of an H100: what a step of the depth takes a lone group, from its loads to its last product; bytes that a
# multiprocessor gets from the caches; what another kernel costs.
_STEP, _BYTES, _MACS, _KERNEL = 0.7, 40e3, 0.9e6, 2.0


def _microseconds(view: View, tile: WarpTile, parts: int, multiprocessors: int) -> float:
    steps = math.ceil(math.ceil(view.depth / tile.depth) / parts)
    groups = parts * view.tiles(tile)
    rounds = -(-groups // multiprocessors)
    moved = rounds * (tile.rows + tile.columns) * tile.depth * 4 / _BYTES
    computed = rounds * tile.rows * tile.columns * tile.depth / _MACS
    resident = max(1, 2048 // tile.threads // 2)  # groups that a multiprocessor has at once
    time = steps * max(_STEP * -(-rounds // resident), moved, computed)
    results = view.batch * view.rows * view.columns * 4
    time += rounds * tile.rows * tile.columns * 4 / _BYTES
    if parts > 1:
        time += _KERNEL + 2 * parts * results / (_BYTES * multiprocessors)
    return time
