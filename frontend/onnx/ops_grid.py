"""`GridSample`."""

from __future__ import annotations

from edgec.frontend.grid_sample import grid_sample
from edgec.frontend.onnx.context import Context, Converted
from edgec.frontend.onnx.model import Node, Unsupported

_MODES = {"bilinear": "linear", "linear": "linear", "nearest": "nearest", "bicubic": "cubic", "cubic": "cubic"}


def _grid_sample(ctx: Context, node: Node) -> Converted:
    x, grid = ctx.value(node, 0), ctx.value(node, 1)
    size = x.type.shape[2:]
    if len(size) not in (2, 3) or grid.type.rank != x.type.rank or grid.type.shape[-1] != len(size):
        raise Unsupported(f"a grid of shape {list(grid.type.shape)} for {x.type}")
    mode = _MODES.get(node.get_str("mode", "linear"))
    padding = node.get_str("padding_mode", "zeros")
    if mode is None or padding not in ("zeros", "border", "reflection"):
        raise Unsupported(f"mode `{node.get_str('mode')}` with padding `{padding}`")
    if x.type.shape[0] != grid.type.shape[0] or 0 in size:
        raise Unsupported(f"{grid.type.shape[0]} grids for {x.type}")
    writer = ctx.writer(node)
    return grid_sample(writer, x, grid, mode, padding, bool(node.get_int("align_corners", 0)))


GRIDS = {"GridSample": _grid_sample}
