"""Code of tiled products on devices.

A group walks the depth in steps of `tile.depth`: all items bring both operands' parts to shared memory, then each adds
the products of its own rows and columns, which lie a whole tile apart so that neighbours read and write neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

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
)
from edgec.backends.tvm.computation import Memory
from edgec.backends.tvm.generic.convolution_code import inside_input, read_position, reader
from edgec.backends.tvm.generic.loops_code import loops, where
from edgec.backends.tvm.generic.tensor_code import Tensor, bound_places, unravel
from edgec.backends.tvm.gpu.parts_code import finish_part
from edgec.backends.tvm.gpu.products import ProductSpec, Tile, TiledSpec
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.conv2d_weight_grad import Conv2dWeightGrad

MAX_UNROLLED = 4

# (batch, row or column, depth) -> the operand's index, and what must hold for there being such an element.
Place = Callable[[Index, Index, Index], tuple[list[Index], list[Expr]]]


@dataclass(frozen=True)
class ProductLayout:
    """How a product lies in its tensors. `deep_left`, `deep_right`: whether neighbours in depth are neighbours in
    memory (else those in rows or columns are); `result`: (batch, row, column) -> index.
    """

    left: Tensor
    right: Tensor
    left_at: Place
    right_at: Place
    result: Callable[[Index, Index, Index], list[Index]]
    deep_left: bool
    deep_right: bool


@dataclass(frozen=True)
class GroupPart:
    """What a work group computes: a tile of the result, from step `start` to `stop` of the depth."""

    spec: TiledSpec
    part: Index
    batch: Index
    first_row: Index
    first_column: Index
    start: Index
    stop: Index

    def inside(self, row: Index, column: Index) -> list[Expr]:
        """What must hold for the result to have such an element."""
        view, tile = self.spec.view, self.spec.tile
        tests = [row < view.rows] if view.rows % tile.rows else []
        return tests + ([column < view.columns] if view.columns % tile.columns else [])


def part_of_group(spec: TiledSpec, group: Expr) -> GroupPart:
    view, tile = spec.view, spec.tile
    rows, columns = -(-view.rows // tile.rows), -(-view.columns // tile.columns)
    steps = -(-view.depth // tile.depth)
    per_part = -(-steps // spec.parts)
    part, batch, row, column = bound_places(group, (spec.parts, view.batch, rows, columns))
    start = part * per_part
    stop = steps if spec.parts == 1 else bind(T.min(start + per_part, steps))
    return GroupPart(spec, part, batch, row * tile.rows, column * tile.columns, start, stop)


def emit_product(spec: ProductSpec, target: Target) -> DeviceKernel:
    tile = spec.step or spec.tile

    def body(*parameters: Pointer | Expr) -> None:
        *pointers, group, item = parameters

        def tensor(memory: Memory) -> Tensor:
            return Tensor(pointers[memory.argument], memory.type, memory.storage)

        layout = product_layout(spec, [tensor(operand) for operand in spec.computation.anchor.operands])
        whole = part_of_group(spec, group)
        cells = shared(tile.depth * tile.rows), shared(tile.depth * tile.columns)
        with loops(spec.tile.rows // tile.rows, spec.tile.columns // tile.columns) as (i, j):
            row, column = bind(whole.first_row + i * tile.rows), bind(whole.first_column + j * tile.columns)
            _emit_tile(tile, layout, replace(whole, first_row=row, first_column=column), cells, item, tensor)

    return DeviceKernel(spec.arguments, spec.groups, spec.threads, body)


def _emit_tile(
    tile: Tile,
    layout: ProductLayout,
    own_part: GroupPart,
    cells: tuple[Pointer, Pointer],
    item: Expr,
    tensor: Callable[[Memory], Tensor],
) -> None:
    spec, view, (left, right) = own_part.spec, own_part.spec.view, cells
    sums = local(tile.own_rows * tile.own_columns)
    for i in range(tile.own_rows * tile.own_columns):
        sums.store(i, constant(0.0))
    # Neighbouring items have neighbouring columns.
    across = tile.columns // tile.own_columns
    down = tile.rows // tile.own_rows
    x, y = bind(item % across), bind(item // across)
    with serial(own_part.start, own_part.stop) as step:
        depth = bind(step * tile.depth)
        _bring(
            left,
            tile.rows,
            layout.left,
            layout.left_at,
            own_part.batch,
            own_part.first_row,
            view.rows,
            depth,
            view.depth,
            tile,
            item,
            layout.deep_left,
        )
        _bring(
            right,
            tile.columns,
            layout.right,
            layout.right_at,
            own_part.batch,
            own_part.first_column,
            view.columns,
            depth,
            view.depth,
            tile,
            item,
            layout.deep_right,
        )
        synchronise()
        with serial(0, tile.depth) as k:
            own = [bind(left.load(k * tile.rows + y + i * down)) for i in range(tile.own_rows)]
            others = [bind(right.load(k * tile.columns + x + j * across)) for j in range(tile.own_columns)]
            for i, a in enumerate(own):
                for j, b in enumerate(others):
                    place = i * tile.own_columns + j
                    sums.store(place, sums.load(place) + a * b)
        synchronise()
    for i in range(tile.own_rows):
        for j in range(tile.own_columns):
            row, column = bind(own_part.first_row + y + i * down), bind(own_part.first_column + x + j * across)
            with where(own_part.inside(row, column)):
                index = layout.result(own_part.batch, row, column)
                finish_part(spec, tensor, own_part.part, index, sums.load(i * tile.own_columns + j))


def _bring(
    cells: Pointer,
    width: int,
    tensor: Tensor,
    at: Place,
    batch: Index,
    first: Index,
    extent: int,
    depth: Index,
    depths: int,
    tile: Tile,
    item: Index,
    deep: bool,
) -> None:
    """`tile.depth` x `width` elements of an operand to shared memory, depth outermost; zeros where there are none."""
    turns = tile.depth * width // tile.threads
    with ExitStack() as stack:
        for turn in range(turns) if turns <= MAX_UNROLLED else [stack.enter_context(serial(0, turns))]:
            position = bind(item + turn * tile.threads)
            inner = tile.depth if deep else width
            outer_place, inner_place = bind(position // inner), bind(position % inner)
            k, i = (inner_place, outer_place) if deep else (outer_place, inner_place)
            place, deeper = bind(first + i), bind(depth + k)
            value = local(1)
            value.store(0, constant(0.0))
            conditions = [place < extent] if extent % width else []
            conditions += [deeper < depths] if depths % tile.depth else []
            with where(conditions):
                index, tests = at(batch, place, deeper)
                with where(tests):
                    value.store(0, tensor.load(index))
            cells.store(k * width + i, value.load(0))


def product_layout(spec: TiledSpec, operands: list[Tensor]) -> ProductLayout:
    """Where the operands and the result of a product lie."""
    op, view = spec.computation.anchor.op, spec.view
    a, b = operands
    match op:
        case Conv2d():
            return _convolution(op, a, b, view.rows)
        case Conv2dInputGrad():
            return _input_gradient(op, a, b, view.rows)
        case Conv2dWeightGrad():
            return _weight_gradient(op, a, b, view.rows)
    shape = spec.computation.stores[0].memory.type.shape[1 if spec.parts > 1 else 0 :]
    leading = shape[:-2]

    def left(batch: Index, row: Index, depth: Index) -> tuple[list[Index], list[Expr]]:
        own = [depth, row] if op.transpose_a else [row, depth]
        return _broadcast([*unravel(batch, leading), *own], a.shape), []

    def right(batch: Index, column: Index, depth: Index) -> tuple[list[Index], list[Expr]]:
        own = [column, depth] if op.transpose_b else [depth, column]
        return _broadcast([*unravel(batch, leading), *own], b.shape), []

    def result(batch: Index, row: Index, column: Index) -> list[Index]:
        return [*unravel(batch, leading), row, column]

    return ProductLayout(a, b, left, right, result, not op.transpose_a, op.transpose_b)


def _broadcast(index: list[Index], shape: tuple[int, ...]) -> list[Index]:
    own = index[len(index) - len(shape) :]
    return [0 if n == 1 else i for i, n in zip(own, shape, strict=True)]


def _convolution(op: Conv2d, x: Tensor, w: Tensor, rows: int) -> ProductLayout:
    """Rows are outputs of a group, columns images and positions, depth channels of a group and taps."""
    window = op.window(x.shape[2:], w.shape[2:])
    images = (x.shape[0], *window.output)

    def left(batch: Index, row: Index, depth: Index) -> tuple[list[Index], list[Expr]]:
        return [batch * rows + row, *unravel(depth, w.shape[1:])], []

    def right(batch: Index, column: Index, depth: Index) -> tuple[list[Index], list[Expr]]:
        n, oy, ox = unravel(column, images)
        c, ky, kx = unravel(depth, w.shape[1:])
        iy, ix = read_position(window, 0, oy, ky), read_position(window, 1, ox, kx)
        return [n, batch * w.shape[1] + c, iy, ix], inside_input(window, iy, ix)

    def result(batch: Index, row: Index, column: Index) -> list[Index]:
        n, oy, ox = unravel(column, images)
        return [n, batch * rows + row, oy, ox]

    return ProductLayout(w, x, left, right, result, True, False)


def _input_gradient(op: Conv2dInputGrad, dy: Tensor, w: Tensor, rows: int) -> ProductLayout:
    """Rows are channels of a group, columns images and input positions, depth outputs of a group and taps."""
    window = op.window(op.input_size, w.shape[2:])
    images = (dy.shape[0], *op.input_size)
    outputs = w.shape[0] // op.groups
    depths = (outputs, *w.shape[2:])

    def left(batch: Index, row: Index, depth: Index) -> tuple[list[Index], list[Expr]]:
        o, ky, kx = unravel(depth, depths)
        return [batch * outputs + o, row, ky, kx], []

    def right(batch: Index, column: Index, depth: Index) -> tuple[list[Index], list[Expr]]:
        n, iy, ix = unravel(column, images)
        o, ky, kx = unravel(depth, depths)
        oy, ox, conditions = reader(window, iy, ix, ky, kx)
        return [n, batch * outputs + o, oy, ox], conditions

    def result(batch: Index, row: Index, column: Index) -> list[Index]:
        n, iy, ix = unravel(column, images)
        return [n, batch * rows + row, iy, ix]

    return ProductLayout(w, dy, left, right, result, False, False)


def _weight_gradient(op: Conv2dWeightGrad, x: Tensor, dy: Tensor, rows: int) -> ProductLayout:
    """Rows are outputs of a group, columns channels of a group and taps, depth images and output positions."""
    window = op.window(x.shape[2:], op.kernel_size)
    channels = x.shape[1] // op.groups
    taps, images = (channels, *op.kernel_size), (x.shape[0], *window.output)

    def left(batch: Index, row: Index, depth: Index) -> tuple[list[Index], list[Expr]]:
        n, oy, ox = unravel(depth, images)
        return [n, batch * rows + row, oy, ox], []

    def right(batch: Index, column: Index, depth: Index) -> tuple[list[Index], list[Expr]]:
        n, oy, ox = unravel(depth, images)
        c, ky, kx = unravel(column, taps)
        iy, ix = read_position(window, 0, oy, ky), read_position(window, 1, ox, kx)
        return [n, batch * channels + c, iy, ix], inside_input(window, iy, ix)

    def result(batch: Index, row: Index, column: Index) -> list[Index]:
        return [batch * rows + row, *unravel(column, taps)]

    return ProductLayout(dy, x, left, right, result, True, True)
