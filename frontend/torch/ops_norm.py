"""Normalisation by the statistics of each sample: over trailing axes, groups of channels, single channels."""

from __future__ import annotations

import math

import numpy as np

from edgec.frontend.torch.call import Call, Unsupported
from edgec.frontend.torch.context import Context, Converted
from edgec.frontend.torch.ops_elementwise import per_channel
from edgec.frontend.torch.ops_movement import reshape
from edgec.graph.ir import Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.layer_norm import LayerNorm
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.rms_norm import RmsNorm

_EPSILON = 2.0**-23  # of f32, where rms_norm is given none


def _trailing(ctx: Context, call: Call) -> int:
    """The axis at which what is normalised begins."""
    x, normalised = ctx.type(call, "input"), ctx.integers(call, "normalized_shape")
    axis = x.rank - len(normalised)
    if axis < 0 or x.shape[axis:] != normalised:
        raise Unsupported(f"{list(normalised)} are not the last extents of {x}")
    return axis


def _layer_norm(ctx: Context, call: Call) -> Converted:
    axis = _trailing(ctx, call)
    x = ctx.value(call, "input")
    parts = [ctx.value(call, "weight")] if ctx.has(call, "weight") else []
    if ctx.has(call, "bias"):
        parts = parts or [ctx.constant(call, np.ones(x.type.shape[axis:]), x.type.dtype)]
        parts.append(ctx.value(call, "bias"))
    y = ctx.emit_first(call, LayerNorm(axis, ctx.number(call, "eps")), x, *parts)
    return (y, None, None) if len(call.results) > 1 else y


def _rms_norm(ctx: Context, call: Call) -> Converted:
    op = RmsNorm(_trailing(ctx, call), ctx.number(call, "eps") if ctx.has(call, "eps") else _EPSILON)
    parts = [ctx.value(call, "weight")] if ctx.has(call, "weight") else []
    return ctx.emit_first(call, op, ctx.value(call, "input"), *parts)


def _grouped(ctx: Context, call: Call, groups: int) -> Value:
    """x[N,C,...] normalised over each of `groups` groups of channels, then scaled and shifted by channel."""
    x = ctx.value(call, "input")
    images, channels = x.type.shape[:2]
    rows = reshape(ctx, call, x, (images, groups, channels // groups * math.prod(x.type.shape[2:])))
    y = reshape(ctx, call, ctx.emit_first(call, LayerNorm(2, ctx.number(call, "eps")), rows), x.type.shape)
    for name, op in (("weight", Mul()), ("bias", Add())):
        if ctx.has(call, name):
            y = ctx.emit(call, op, y, per_channel(ctx, call, ctx.value(call, name), y.type.rank))
    return y


def _group_norm(ctx: Context, call: Call) -> Converted:
    return _grouped(ctx, call, ctx.integer(call, "num_groups"))


def _instance_norm(ctx: Context, call: Call) -> Converted:
    if not ctx.flag(call, "use_input_stats"):
        raise Unsupported("instance norm with running statistics")
    return _grouped(ctx, call, ctx.type(call, "input").shape[1])


NORMALISATIONS = {
    "aten.layer_norm.default": _layer_norm,
    "aten.native_layer_norm.default": _layer_norm,
    "aten.rms_norm.default": _rms_norm,
    "aten.group_norm.default": _group_norm,
    "aten.instance_norm.default": _instance_norm,
}
