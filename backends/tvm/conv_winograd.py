"""The strategy for frozen 3 x 3 convolutions that Winograd's filtering makes faster. Loads no tvm."""

from __future__ import annotations

from edgec.backends.base import Lowering
from edgec.backends.tvm.conv import bind_results, weight_fits
from edgec.backends.tvm.epilogue import same_order
from edgec.backends.tvm.products import Request
from edgec.backends.tvm.tiling import panel_width, tile_rows
from edgec.backends.tvm.tuning.winograd import WinogradProblem
from edgec.backends.tvm.winograd import WinogradFilterSpec, WinogradSpec
from edgec.graph.ir import Role, Value
from edgec.graph.ops.conv2d import Conv2d
from edgec.runtime.abi import Storage

_BLOCK_BYTES = 1 << 19  # of transformed inputs, beside which a panel of filters stays in the second cache
_MOST_TASKS = 4  # each has its own block


def lower_winograd(request: Request) -> Lowering | None:
    op = request.group.anchor.op
    if not isinstance(op, Conv2d) or op.groups > 1 or op.strides != (1, 1) or op.dilations != (1, 1):
        return None
    x, w = request.group.anchor.inputs
    out = request.group.anchor.output.type.shape
    bound = bind_results(request, Storage.channels_last(out))
    if bound is None or w.type.shape[2:] != (3, 3) or not _is_frozen(w) or not weight_fits(request, op, w):
        return None
    if not same_order(request.storage[x], Storage.channels_last(x.type.shape)):
        return None
    columns, channels = w.type.shape[:2]
    problem = WinogradProblem(out[0], *out[2:], channels, columns)
    tile = request.tuning.choose(problem, request.target).tile
    if not tile:
        return None
    width = panel_width(columns, request.target)
    filters = WinogradFilterSpec(tile, channels, columns, width)
    rows, tail = tile_rows(width, request.target), columns % width
    blocks, tasks = _blocks(problem.tiles(tile), filters, rows)
    spec = WinogradSpec(
        filters,
        out[0],
        x.type.shape[2:],
        op.pads[:2],
        out[2:],
        bound.epilogue,
        rows,
        tile_rows(tail, request.target) if tail else rows,
        blocks,
        tasks,
    )
    transformed, inputs, products = (
        request.workspace(argument.elements) for argument in (filters.arguments[1], *spec.arguments[-2:])
    )
    request.call(filters, (w, transformed), filters.tasks)
    operands = (x, transformed, *bound.operands, inputs, products)
    request.call(spec, operands, tasks, op.macs(w.type.shape, out))
    return request.lowering()


def _is_frozen(w: Value) -> bool:
    return w.role in (Role.PARAM, Role.CONSTANT) and not w.trainable


def _blocks(tiles: int, filters: WinogradFilterSpec, rows: int) -> tuple[int, int]:
    """Blocks of tiles and tasks: a block is at least a register tile of `rows`, and tasks have equal shares."""
    fit = _BLOCK_BYTES // (4 * filters.positions * filters.channels)
    blocks = -(-tiles // max(rows, min(fit, 2 * rows)))
    tasks = min(_MOST_TASKS, max(2, blocks), max(1, tiles // 4))
    return -(-blocks // tasks) * tasks, tasks
