"""Products on devices: convolutions, their gradients and matrix products as tiles in shared memory.

Everything is result[batch, row, column] = sum over depth of left[batch, row, depth] * right[batch, depth, column]; a
`View` says what the four extents are. Work groups own tiles of the result. Where there are too few tiles to fill a
device, the depth is cut into parts that go to a workspace, and a second kernel adds them in order. Nothing here loads
tvm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol, Self

from edgec.backends.base import Argument, Group, Lowering
from edgec.backends.tvm.computation import Computation, bind_computation
from edgec.backends.tvm.gpu.parts import lower_in_parts
from edgec.graph.ir import Node, Value
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.conv2d_weight_grad import Conv2dWeightGrad
from edgec.graph.ops.matmul import MatMul
from edgec.graph.types import DType
from edgec.runtime.abi import MAX_KERNEL_ARGS, Storage

MIN_TILES = 96  # below, tiles are made smaller and then the depth is cut: an H100 has 132 multiprocessors
MIN_PART = 256  # depth of a part
MAX_PARTS = 64
MIN_WORK = 8  # rows, columns and depth: less is not worth shared memory


@dataclass(frozen=True)
class Tile:
    """`rows` x `columns` of the result, `depth` at a time; an item has `own_rows` x `own_columns` of them."""

    rows: int
    columns: int
    depth: int
    own_rows: int
    own_columns: int

    @property
    def threads(self) -> int:
        return self.rows // self.own_rows * (self.columns // self.own_columns)


LARGE = Tile(64, 64, 16, 4, 4)
SMALL = Tile(32, 32, 16, 2, 2)
NARROW = Tile(32, 32, 16, 4, 4)  # divides both


class GroupTile(Protocol):
    """What a work group computes of the result."""

    @property
    def rows(self) -> int: ...
    @property
    def columns(self) -> int: ...
    @property
    def depth(self) -> int: ...
    @property
    def threads(self) -> int: ...


@dataclass(frozen=True)
class View:
    """The extents of a product. Columns and depth of convolutions are several axes flattened; see `products_code`."""

    batch: int
    rows: int
    columns: int
    depth: int

    def tiles(self, tile: GroupTile) -> int:
        return self.batch * -(-self.rows // tile.rows) * -(-self.columns // tile.columns)


@dataclass(frozen=True)
class TiledSpec:
    """One part of `parts` of the depth for each group of tiles: with more than one, sums go to the last argument."""

    computation: Computation
    view: View
    tile: GroupTile
    parts: int = 1

    @property
    def what(self) -> str:
        return self.computation.stem if self.parts == 1 else f"f32_{self.computation.anchor.op.name}_part"

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return self.computation.arguments

    @property
    def threads(self) -> int:
        return self.tile.threads

    @property
    def groups(self) -> int:
        return self.parts * self.view.tiles(self.tile)


@dataclass(frozen=True)
class ProductSpec(TiledSpec):
    """`step`: what a group has of its tile at a time, one after another. None: all of it."""

    tile: Tile
    step: Tile | None = None

    @property
    def stem(self) -> str:
        return f"{self.what}_tile{self.tile.rows}"

    @property
    def threads(self) -> int:
        return (self.step or self.tile).threads

    def narrowed(self, most: int) -> Self:
        return self if self.threads <= most else replace(self, step=NARROW)


def lower_device_product(
    group: Group, storage: Mapping[Value, Storage], alias: Mapping[Value, Value]
) -> Lowering | None:
    """Tiles, for an f32 anchor that has enough of everything; None for others."""
    view = tiled_view(group.anchor)
    if view is None:
        return None
    bound = bind_computation(group, storage, alias)
    tile = LARGE if view.tiles(LARGE) >= MIN_TILES else SMALL
    wanted = min(MAX_PARTS, max(1, view.depth // MIN_PART), -(-MIN_TILES // max(view.tiles(tile), 1)))
    parts = wanted if len(bound.operands) < MAX_KERNEL_ARGS else 1
    return lower_in_parts(ProductSpec(bound.computation, view, tile, parts), bound, group.anchor)


def tiled_view(anchor: Node) -> View | None:
    """The extents of a product in f32 that has enough of everything; None for others."""
    view = _view(anchor)
    if view is None or min(view.rows, view.columns, view.depth) < MIN_WORK:
        return None
    if any(value.type.dtype is not DType.F32 for value in (*anchor.inputs, *anchor.outputs)):
        return None
    return view


def _view(anchor: Node) -> View | None:
    if not isinstance(anchor.op, (Conv2d, Conv2dInputGrad, Conv2dWeightGrad, MatMul)):
        return None
    a, b, y = (value.type.shape for value in (*anchor.inputs, *anchor.outputs))
    match anchor.op:
        case Conv2d(groups=g):
            return View(g, y[1] // g, y[0] * y[2] * y[3], math.prod(b[1:]))
        case Conv2dInputGrad(groups=g):
            return View(g, b[1], y[0] * y[2] * y[3], b[0] // g * math.prod(b[2:]))
        case Conv2dWeightGrad(groups=g):
            return View(g, y[0] // g, math.prod(y[1:]), b[0] * b[2] * b[3])
        case MatMul():
            return View(math.prod(y[:-2]), y[-2], y[-1], a[-2] if anchor.op.transpose_a else a[-1])
