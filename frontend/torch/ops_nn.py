"""Layers with weights: convolutions, dense layers, batch normalisation, attention. Biases are `reshape` and `add`."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch

from edgec.frontend.convolution3d import conv3d, conv_transpose3d, stacked
from edgec.frontend.torch.call import Call, Known, Unsupported
from edgec.frontend.torch.context import Context, Converted, check_table, to_numpy
from edgec.frontend.torch.ops_elementwise import per_channel
from edgec.frontend.torch.ops_movement import expand, reshape
from edgec.graph.ir import Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.batch_norm import BatchNorm
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.ops.softmax import Softmax
from edgec.graph.ops.where import Where
from edgec.graph.types import DType

_MASKED = -1e30  # added to a score: its weight is 0, and no infinity meets another


def widen(ctx: Context, call: Call, x: Value, axes: int) -> Value:
    """x[N,C,*spatial] as [N,C,H,W]: without a batch it gains one, a single spatial axis becomes W."""
    shape = x.type.shape if x.type.rank == axes + 2 else (1, *x.type.shape)
    if len(shape) != axes + 2 or axes not in (1, 2):
        raise Unsupported(f"windows over {axes} axes of an input of rank {x.type.rank}")
    return reshape(ctx, call, x, shape if axes == 2 else (*shape[:2], 1, shape[2]))


def over_width(values: tuple[int, ...], neutral: int) -> tuple[int, int]:
    """Extents along H and W; one alone is along W."""
    return (neutral, *values) if len(values) == 1 else values


def _convolved(ctx: Context, call: Call, axes: int, pads: tuple[int, int, int, int]) -> Converted:
    weight = ctx.value(call, "weight")
    x = widen(ctx, call, ctx.value(call, "input"), axes)
    strides = over_width(ctx.pair(call, "stride", axes), 1)
    dilations = over_width(ctx.pair(call, "dilation", axes), 1)
    op = Conv2d(strides, pads, dilations, ctx.integer(call, "groups"))
    y = ctx.emit(call, op, x, widen(ctx, call, weight, axes))
    return reshape(ctx, call, _with_bias(ctx, call, y), call.shape)


def _conv(axes: int, ctx: Context, call: Call) -> Converted:
    top, left = over_width(ctx.pair(call, "padding", axes), 0)
    return _convolved(ctx, call, axes, (top, left, top, left))


def _conv3d(ctx: Context, call: Call) -> Converted:
    padding = ctx.pair(call, "padding", 3)
    return _convolved_volume(ctx, call, padding, padding)


def _convolved_volume(ctx: Context, call: Call, low: tuple[int, ...], high: tuple[int, ...]) -> Converted:
    x, weight, writer = ctx.value(call, "input"), ctx.value(call, "weight"), ctx.writer(call)
    x = reshape(ctx, call, x, (1, *x.type.shape)) if x.type.rank == 4 else x
    strides, dilations = (ctx.pair(call, name, 3) for name in ("stride", "dilation"))
    images = conv3d(writer, x, weight, strides, low, high, dilations, ctx.integer(call, "groups"))
    return reshape(ctx, call, stacked(writer, _with_bias(ctx, call, images), x.type.shape[0]), call.shape)


def _conv_by_name(axes: int, ctx: Context, call: Call) -> Converted:
    """Padding `same` or `valid`; where `same` is odd, the end has one more."""
    kernel = ctx.type(call, "weight").shape[2:]
    totals = [d * (k - 1) for d, k in zip(ctx.pair(call, "dilation", axes), kernel, strict=True)]
    if call.arguments["padding"] == "valid":
        totals = [0] * axes
    if axes == 3:
        low = tuple(total // 2 for total in totals)
        return _convolved_volume(ctx, call, low, tuple(t - before for t, before in zip(totals, low, strict=True)))
    height, width = over_width(tuple(totals), 0)
    return _convolved(ctx, call, axes, (height // 2, width // 2, height - height // 2, width - width // 2))


def _with_bias(ctx: Context, call: Call, y: Value) -> Value:
    """y[N,C,H,W] plus the optional bias of shape [C]."""
    if not ctx.has(call, "bias"):
        return y
    return ctx.emit(call, Add(), y, per_channel(ctx, call, ctx.value(call, "bias"), y.type.rank))


def _conv_transpose(axes: int, ctx: Context, call: Call) -> Converted:
    """The input gradient of the convolution with the same weight, as a forward op."""
    weight = ctx.value(call, "weight")
    if axes == 3:
        strides, low, dilations = (ctx.pair(call, name, axes) for name in ("stride", "padding", "dilation"))
        x, writer = ctx.value(call, "input"), ctx.writer(call)
        x = reshape(ctx, call, x, (1, *x.type.shape)) if x.type.rank == 4 else x
        size, groups = call.shape[-axes:], ctx.integer(call, "groups")
        images = conv_transpose3d(writer, x, weight, strides, low, size, dilations, groups)
        return reshape(ctx, call, stacked(writer, _with_bias(ctx, call, images), x.type.shape[0]), call.shape)
    x = widen(ctx, call, ctx.value(call, "input"), axes)
    top, left = over_width(ctx.pair(call, "padding", axes), 0)
    op = Conv2dInputGrad(
        over_width(ctx.pair(call, "stride", axes), 1),
        (top, left, top, left),
        over_width(ctx.pair(call, "dilation", axes), 1),
        ctx.integer(call, "groups"),
        input_size=over_width(call.shape[-axes:], 1),
    )
    y = ctx.emit(call, op, x, widen(ctx, call, weight, axes))
    return reshape(ctx, call, _with_bias(ctx, call, y), call.shape)


def _convolution(ctx: Context, call: Call) -> Converted:
    """The general one: the length of its stride says over how many axes, a flag whether it is transposed."""
    axes = ctx.type(call, "weight").rank - 2
    if ctx.flag(call, "transposed"):
        return _conv_transpose(axes, ctx, call)
    return _conv3d(ctx, call) if axes == 3 else _conv(axes, ctx, call)


def _linear(ctx: Context, call: Call) -> Converted:
    x, weight = ctx.value(call, "input"), ctx.value(call, "weight")
    if weight.type.rank != 2:
        raise Unsupported(f"a weight of rank {weight.type.rank}")
    rows = reshape(ctx, call, x, (1, *x.type.shape)) if x.type.rank == 1 else x
    y = ctx.emit(call, MatMul(transpose_b=True), rows, weight)
    if ctx.has(call, "bias"):
        y = ctx.emit(call, Add(), y, ctx.value(call, "bias"))
    return reshape(ctx, call, y, call.shape)


def _product(left: str, right: str, ctx: Context, call: Call) -> Converted:
    return matmul(ctx, call, ctx.value(call, left), ctx.value(call, right))


def matmul(ctx: Context, call: Call, a: Value, b: Value) -> Value:
    """numpy's matmul: a vector operand gains an axis, which the result loses."""
    left = reshape(ctx, call, a, (1, *a.type.shape)) if a.type.rank == 1 else a
    right = reshape(ctx, call, b, (*b.type.shape, 1)) if b.type.rank == 1 else b
    y = ctx.emit(call, MatMul(), left, right)
    *lead, m, n = y.type.shape
    return reshape(ctx, call, y, (*lead, *(() if a.type.rank == 1 else (m,)), *(() if b.type.rank == 1 else (n,))))


def _added_product(left: str, right: str, ctx: Context, call: Call) -> Converted:
    """beta * self + alpha * (left @ right)."""
    y = _scaled(ctx, call, "alpha", _product(left, right, ctx, call))
    if ctx.number(call, "beta") == 0:
        return y
    return ctx.emit(call, Add(), y, _scaled(ctx, call, "beta", ctx.value(call, "self")))


def _scaled(ctx: Context, call: Call, name: str, x: Value) -> Value:
    factor = ctx.number(call, name)
    return x if factor == 1 else ctx.emit(call, Mul(), x, ctx.scalar(call, factor, x))


def _batch_norm(ctx: Context, call: Call) -> Converted:
    x = ctx.value(call, "input")
    channels = x.type.shape[1]
    gamma, beta = (
        ctx.value(call, name) if ctx.has(call, name) else ctx.constant(call, np.full(channels, default), x.type.dtype)
        for name, default in (("weight", 1.0), ("bias", 0.0))
    )
    mean, variance = ctx.statistic(call, "running_mean"), ctx.statistic(call, "running_var")
    op = BatchNorm(ctx.number(call, "eps"), ctx.number(call, "momentum"))
    return (ctx.emit(call, op, x, gamma, beta, mean, variance),)


def _attention(ctx: Context, call: Call) -> Converted:
    """softmax(q k' * scale + mask) v (Vaswani et al., Attention is all you need, 2017)."""
    if ctx.number(call, "dropout_p"):
        raise Unsupported("dropout in training mode; export the module after module.eval()")
    q, k, v = (ctx.value(call, name) for name in ("query", "key", "value"))
    if ctx.flag(call, "enable_gqa"):
        k, v = (_shared_heads(ctx, call, x, q.type.shape[-3]) for x in (k, v))
    scale = ctx.number(call, "scale") if ctx.has(call, "scale") else 1 / math.sqrt(q.type.shape[-1])
    scores = ctx.emit(call, MatMul(transpose_b=True), ctx.emit(call, Mul(), q, ctx.scalar(call, scale, q)), k)
    rows, columns = scores.type.shape[-2:]
    if ctx.flag(call, "is_causal"):
        check_table(rows, columns)
        scores = ctx.emit(call, Add(), scores, _masked(ctx, call, torch.ones(rows, columns).tril().bool(), scores))
    allowed = None
    if ctx.has(call, "attn_mask"):
        allowed = _allowed(ctx, call)
        scores = ctx.emit(call, Add(), scores, _mask(ctx, call, scores))
    weights = ctx.emit(call, Softmax(scores.type.rank - 1), scores)
    if allowed is not None:
        weights = ctx.emit(call, Where(), allowed, weights, ctx.scalar(call, 0.0, weights))
    return ctx.emit(call, MatMul(), weights, v)


def _allowed(ctx: Context, call: Call) -> Value | None:
    """The mask, where it may forbid all keys to a query: torch then gives 0, not their mean."""
    entry = ctx.entry(call, "attn_mask")
    if isinstance(entry, Known):
        forbids = entry.tensor.dtype == torch.bool and not entry.tensor.any(-1).all()
        return ctx.as_value(entry) if forbids else None
    return entry if entry.type.dtype is DType.BOOL else None


def _shared_heads(ctx: Context, call: Call, x: Value, heads: int) -> Value:
    """x[...,G,S,E], each of its G heads repeated for the queries that share it."""
    *lead, groups, rows, width = x.type.shape
    if groups == heads:
        return x
    y = expand(
        ctx,
        call,
        reshape(ctx, call, x, (*lead, groups, 1, rows, width)),
        (*lead, groups, heads // groups, rows, width),
    )
    return reshape(ctx, call, y, (*lead, heads, rows, width))


def _mask(ctx: Context, call: Call, scores: Value) -> Value:
    entry = ctx.entry(call, "attn_mask")
    if isinstance(entry, Known) and entry.tensor.dtype == torch.bool:
        return _masked(ctx, call, entry.tensor, scores)
    mask = ctx.as_value(entry)
    if mask.type.dtype is not DType.BOOL:
        return mask
    return ctx.emit(call, Where(), mask, ctx.scalar(call, 0.0, scores), ctx.scalar(call, _MASKED, scores))


def _masked(ctx: Context, call: Call, allowed: torch.Tensor, scores: Value) -> Value:
    """0 where a score counts, else far below any score."""
    return ctx.constant(call, np.where(to_numpy(allowed), 0.0, _MASKED), scores.type.dtype)


def _sum_of_products(ctx: Context, call: Call) -> Converted:
    """beta * self + alpha * sum(batch1 @ batch2)."""
    total = ctx.emit(call, ReduceSum((0,)), _product("batch1", "batch2", ctx, call))
    y = _scaled(ctx, call, "alpha", total)
    if ctx.number(call, "beta") == 0:
        return y
    return ctx.emit(call, Add(), y, _scaled(ctx, call, "beta", ctx.value(call, "self")))


LAYERS = {
    "aten.conv1d.default": partial(_conv, 1),
    "aten.conv2d.default": partial(_conv, 2),
    "aten.conv3d.default": _conv3d,
    "aten.conv1d.padding": partial(_conv_by_name, 1),
    "aten.conv2d.padding": partial(_conv_by_name, 2),
    "aten.conv3d.padding": partial(_conv_by_name, 3),
    "aten.conv_transpose1d.default": partial(_conv_transpose, 1),
    "aten.conv_transpose2d.input": partial(_conv_transpose, 2),
    "aten.convolution.default": _convolution,
    "aten.linear.default": _linear,
    "aten.mm.default": partial(_product, "self", "mat2"),
    "aten.bmm.default": partial(_product, "self", "mat2"),
    "aten.matmul.default": partial(_product, "self", "other"),
    "aten.addmm.default": partial(_added_product, "mat1", "mat2"),
    "aten.baddbmm.default": partial(_added_product, "batch1", "batch2"),
    "aten.addbmm.default": _sum_of_products,
    "aten._native_batch_norm_legit_no_training.default": _batch_norm,
    "aten.scaled_dot_product_attention.default": _attention,
}
