"""Normalisations over rows: layer, root mean square, instance and group norm."""

from __future__ import annotations

import math

from edgec.frontend.onnx.arguments import normal_axis
from edgec.frontend.onnx.context import Context, Converted
from edgec.frontend.onnx.model import Node, Unsupported
from edgec.graph.ir import Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.layer_norm import LayerNorm
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.rms_norm import RmsNorm


def _factors(ctx: Context, node: Node, indices: tuple[int, ...], shape: tuple[int, ...]) -> list[Value] | None:
    """The given scale and shift, if they have the shape that the norm itself can apply."""
    values = [ctx.value(node, index) for index in indices if ctx.has(node, index)]
    return values if all(value.type.shape == shape for value in values) else None


def _layer_norm(ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    axis = normal_axis(node.get_int("axis", -1), x.type.rank)
    op = LayerNorm(axis, node.get_float("epsilon", 1e-5))
    factors = _factors(ctx, node, (1, 2), x.type.shape[axis:])
    y, mean, inv_std = ctx.emit_all(node, op, x, *(factors or ()))
    if factors is None:
        y = ctx.emit(node, Mul(), y, ctx.value(node, 1))
        y = ctx.emit(node, Add(), y, ctx.value(node, 2)) if ctx.has(node, 2) else y
    rows = (*x.type.shape[:axis], *(1,) * (x.type.rank - axis))
    return y, *(ctx.emit(node, Reshape(rows), row) for row in (mean, inv_std))


def _rms_norm(ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    axis = normal_axis(node.get_int("axis", -1), x.type.rank)
    op = RmsNorm(axis, node.get_float("epsilon", 1e-5))
    factors = _factors(ctx, node, (1,), x.type.shape[axis:])
    y, _ = ctx.emit_all(node, op, x, *(factors or ()))
    return y if factors is not None else ctx.emit(node, Mul(), y, ctx.value(node, 1))


def _instance_norm(ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    if x.type.rank < 3:
        raise Unsupported(f"an input of rank {x.type.rank} has no spatial axes")
    y, *_ = ctx.emit_all(node, LayerNorm(2, node.get_float("epsilon", 1e-5)), x)
    return _per_channel(ctx, node, y)


def _group_norm(ctx: Context, node: Node) -> Converted:
    x = ctx.value(node, 0)
    if x.type.rank < 2:
        raise Unsupported(f"an input of rank {x.type.rank} has no channels")
    n, channels, *rest = x.type.shape
    groups = node.get_int("num_groups")
    if groups < 1 or channels % groups:
        raise Unsupported(f"{channels} channels in {groups} groups")
    rows = ctx.emit(node, Reshape((n, groups, channels // groups * math.prod(rest))), x)
    y, *_ = ctx.emit_all(node, LayerNorm(2, node.get_float("epsilon", 1e-5)), rows)
    if node.opset >= 21:
        return _per_channel(ctx, node, ctx.emit(node, Reshape(x.type.shape), y))
    # Before opset 21 scale and shift are those of groups, not of channels.
    y = ctx.emit(node, Reshape((n, groups, channels // groups, *rest)), y)
    return ctx.emit(node, Reshape(x.type.shape), _per_channel(ctx, node, y))


def _per_channel(ctx: Context, node: Node, y: Value) -> Value:
    """y times input 1, plus input 2, along axis 1."""
    shape = (y.type.shape[1], *(1,) * (y.type.rank - 2))
    scale, shift = (ctx.value(node, index) for index in (1, 2))
    if {scale.type.shape, shift.type.shape} != {shape[:1]}:
        raise Unsupported(f"scale and shift must have {shape[0]} elements")
    y = ctx.emit(node, Mul(), y, ctx.emit(node, Reshape(shape), scale))
    return ctx.emit(node, Add(), y, ctx.emit(node, Reshape(shape), shift))


NORMS = {
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
}
