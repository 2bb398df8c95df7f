"""Strategies for `MatMul`: the right operand in panels, row-major, or transposed into panels first. Loads no tvm."""

from __future__ import annotations

import math

from edgec.backends.base import Lowering
from edgec.backends.tvm.dots import dot_spec, may_use_dots
from edgec.backends.tvm.epilogue import same_order
from edgec.backends.tvm.gemm import UNIT, Axis, Panels, Patches, Placement, Table
from edgec.backends.tvm.maps import transposition
from edgec.backends.tvm.products import Operand, Request, add_product, add_reduction, choose_tiles
from edgec.backends.tvm.repack import TransposeSpec
from edgec.backends.tvm.tiling import panel_width
from edgec.backends.tvm.tuning.few_rows import FewRowsProblem
from edgec.backends.tvm.tuning.products import ProductTiles
from edgec.graph.ops.matmul import MatMul
from edgec.runtime.abi import Storage


def lower_matmul(request: Request) -> Lowering | None:
    op = request.group.anchor.op
    if not isinstance(op, MatMul):
        return None
    return _weight_gradient(request, op) or _product(request, op)


def _product(request: Request, op: MatMul) -> Lowering | None:
    a, b = request.group.anchor.inputs
    shape = request.group.anchor.output.type.shape
    bound = request.epilogue(Storage.row_major(shape))
    *leading, rows, columns = shape
    depth = a.type.shape[-2 if op.transpose_a else -1]
    batch = math.prod(leading)
    if bound is None or not request.storage[a].is_row_major or 0 in (*shape, depth):
        return None
    if not all(same_order(request.storage[v], Storage.row_major(v.type.shape)) for v in request.group.outputs):
        return None
    if b.type.rank == 2 and a.type.shape[:-2] == tuple(leading) and not op.transpose_a:
        rows, batch = rows * batch, 1  # one weight for all: the batch is more rows
    elif any(v.type.shape[:-2] not in (tuple(leading), (1,) * len(leading), ()) for v in (a, b)):
        return None
    a_stride = rows * depth if math.prod(a.type.shape[:-2]) > 1 else 0
    width = _along_depth(request, op)
    if batch == 1 and not op.transpose_a and may_use_dots(depth, width, request.target):
        if request.tuning.choose(FewRowsProblem(rows, depth, columns), request.target).form == "dots":
            spec = dot_spec(rows, depth, columns, width, bound.epilogue, request.target)
            request.call(spec, (a, b, *bound.operands), spec.tasks, rows * depth * columns)
            return request.lowering()
    left = Patches.matrix(rows, depth, transposed=op.transpose_a, batch=batch, batch_stride=a_stride)
    tiles = choose_tiles(request, left, columns, bound, batch)
    right = _right(request, op, depth, columns, batch, tiles)
    if right is None:
        return None
    matrix, operand, tiles = right
    placement = Placement(columns, (0, 0, 1), batch_rows=rows)
    add_product(request, "matmul", (left, a), (matrix, operand), placement, bound, batch, tiles)
    return request.lowering()


def _along_depth(request: Request, op: MatMul) -> int:
    """The width of the right operand's panels, if it is a matrix along which the depth runs in them; else 0."""
    b = request.group.anchor.inputs[1]
    storage = request.storage[b]
    if b.type.rank > 2 and not storage.is_row_major or math.prod(b.type.shape[:-2]) > 1:
        return 0
    # As a matrix in memory: the last permuted axis runs fastest within a panel.
    last = storage.perm[-1] - (b.type.rank - 2)
    return (storage.block or storage.dims[storage.perm[-1]]) if (last == 1) == op.transpose_b else 0


def _right(
    request: Request, op: MatMul, depth: int, columns: int, batch: int, tiles: ProductTiles
) -> tuple[Panels | Table, Operand, ProductTiles | None] | None:
    """The right operand as [depth, columns] for `tiles`, repacked if it is stored the other way round; without tiles
    where it lies in panels that all products with it agree on.
    """
    width = tiles.width
    b = request.group.anchor.inputs[1]
    storage = request.storage[b]
    if b.type.rank > 2 or not storage.block:
        if not op.transpose_b and storage.is_row_major:
            stride = depth * columns if math.prod(b.type.shape[:-2]) > 1 else 0
            return Table(depth, columns, width, columns, b.type.size, stride), b, tiles
    if b.type.rank > 2 and not storage.is_row_major:
        return None
    if b.type.rank > 2 and batch > 1 and math.prod(b.type.shape[:-2]) > 1:
        copy = transposition(batch, columns, depth)
        packed = request.workspace(b.type.size)
        request.call(copy, (packed, b), copy.tasks)
        return Table(depth, columns, width, columns, b.type.size, depth * columns), packed, tiles
    block = _along_depth(request, op)
    if not block:
        return Panels(depth, columns, storage.block or storage.dims[storage.perm[-1]]), b, None
    spec = TransposeSpec(columns, depth, 1, (0,), min(block, depth), width)
    packed = request.workspace(depth * columns)
    request.call(spec, (b, packed), spec.tasks)
    return Panels(depth, columns, width), packed, tiles


def _weight_gradient(request: Request, op: MatMul) -> Lowering | None:
    """a^T b, where the result has the panels of a weight, or its rows are many: sums over the rows of both."""
    a, b = request.group.anchor.inputs
    if not op.transpose_a or op.transpose_b or a.type.rank != 2 or b.type.rank != 2:
        return None
    if not (request.storage[a].is_row_major and request.storage[b].is_row_major):
        return None
    bound = request.epilogue()
    if bound is None or 0 in (*a.type.shape, *b.type.shape):
        return None
    out = request.storage[request.group.outputs[0]]
    # Whichever operand's columns run fastest in the result is the right one.
    left, right = (a, b) if out.perm[-1] == 1 else (b, a)
    rows, depth = left.type.shape
    columns = right.type.shape[1]
    width = out.block or panel_width(columns, request.target)
    patches = Patches(left.type.size, (UNIT, UNIT, Axis(rows, depth)), (UNIT, UNIT, Axis(depth, 1)))
    read = (right.type.size, (0, 0, columns), right)
    add_reduction(request, "matmul_tn", (patches, left), columns, width, read, bound, row_major=not out.block)
    return request.lowering()
