"""Quantization: linear, per tensor, axis or block, in u8 and i8; and the integer products that exporters write.

Products of 8-bit integers are computed in f32, which holds sums of at most 258 of them exactly: longer ones are cut and
added up in i32.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgec.frontend.onnx.arguments import normal_axis, read_windows
from edgec.frontend.onnx.context import Context, Converted
from edgec.frontend.onnx.model import Node, Opaque, Unsupported
from edgec.frontend.onnx.ops_indexing import pick
from edgec.frontend.onnx.ops_logic import cast
from edgec.frontend.onnx.ops_nn import narrow, widen
from edgec.frontend.onnx.tensors import numpy_dtype
from edgec.graph.ir import Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.clip import Clip
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.div import Div
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.round import Round
from edgec.graph.ops.slice import Slice
from edgec.graph.ops.sub import Sub
from edgec.graph.types import DType, TensorType

_EIGHT_BITS = (DType.U8, DType.I8)
_EXACT = 2**24 // 255**2  # products of 8-bit integers whose sum f32 holds exactly


def _quantize_linear(ctx: Context, node: Node) -> Converted:
    """saturate(round(x / scale) + zero_point)."""
    x, scale = ctx.value(node, 0), ctx.value(node, 1)
    to = _target(ctx, node, 2)
    zero = ctx.value(node, 2) if ctx.has(node, 2) else None
    x = cast(ctx, node, x, DType.F32)
    scale = _along(ctx, node, cast(ctx, node, scale, DType.F32), x.type)
    zero = _along(ctx, node, zero, x.type) if zero is not None else None
    return _saturated(ctx, node, ctx.emit(node, Div(), x, scale), zero, to)


def _dequantize_linear(ctx: Context, node: Node) -> Converted:
    """(x - zero_point) * scale, in the dtype of the scale."""
    x, scale = ctx.value(node, 0), ctx.value(node, 1)
    to = scale.type.dtype
    zero = _along(ctx, node, ctx.value(node, 2), x.type) if ctx.has(node, 2) else None
    y = _centred(ctx, node, x, zero)
    y = ctx.emit(node, Mul(), y, _along(ctx, node, cast(ctx, node, scale, DType.F32), x.type))
    return cast(ctx, node, y, to)


def _target(ctx: Context, node: Node, zero_point: int) -> DType:
    if ctx.has(node, zero_point):
        dtype = ctx.type(node, zero_point).dtype
    elif node.attributes.get("output_dtype", 0):
        made = numpy_dtype(node.get_int("output_dtype"))
        dtype = made if isinstance(made, Opaque) else DType.of(made) if made in _eight_bits() else Opaque(str(made))
    else:
        dtype = DType.U8
    if dtype not in _EIGHT_BITS:
        raise Unsupported(f"quantizes to {dtype.value if isinstance(dtype, DType) else dtype.what}")
    return dtype


def _eight_bits() -> list[np.dtype]:
    return [dtype.numpy for dtype in _EIGHT_BITS]


def _along(ctx: Context, node: Node, factor: Value, x: TensorType) -> Value:
    """A scale or zero point in a shape that broadcasts to x: one, one for each slice of the axis, or of its blocks."""
    shape = factor.type.shape
    if math.prod(shape) == 1:
        return factor if not shape else ctx.emit(node, Reshape(()), factor)
    axis = normal_axis(node.get_int("axis", 1), x.rank)
    if len(shape) == 1 and shape[0] == x.shape[axis]:
        return ctx.emit(node, Reshape((shape[0], *(1,) * (x.rank - 1 - axis))), factor)
    block = node.get_int("block_size", 0)
    expected = (*x.shape[:axis], -(-x.shape[axis] // block) if block > 0 else -1, *x.shape[axis + 1 :])
    if shape != expected:
        raise Unsupported(f"a factor of shape {list(shape)} for {x}")
    return pick(ctx, node, factor, axis, np.arange(x.shape[axis]) // block)


def _centred(ctx: Context, node: Node, x: Value, zero: Value | None) -> Value:
    """x - zero_point in f32."""
    x = cast(ctx, node, x, DType.F32)
    return x if zero is None else ctx.emit(node, Sub(), x, cast(ctx, node, zero, DType.F32))


def _saturated(ctx: Context, node: Node, x: Value, zero: Value | None, to: DType) -> Value:
    x = ctx.emit(node, Round(), x)
    x = x if zero is None else ctx.emit(node, Add(), x, cast(ctx, node, zero, DType.F32))
    limits = np.iinfo(to.numpy)
    return cast(ctx, node, ctx.emit(node, Clip(float(limits.min), float(limits.max)), x), to)


def _zero(ctx: Context, node: Node, index: int, rows: int, rank: int) -> Value | None:
    """A zero point: one, or one for each of `rows` along the last axis but one."""
    if not ctx.has(node, index):
        return None
    zero = ctx.value(node, index)
    if math.prod(zero.type.shape) == 1:
        return ctx.emit(node, Reshape(()), zero) if zero.type.shape else zero
    if rank > 1 and zero.type.shape == (rows,):
        return ctx.emit(node, Reshape((rows, 1)), zero)
    return zero


def _product(ctx: Context, node: Node, a: Value, b: Value) -> Value:
    """a @ b of centred 8-bit integers, exact, in i32."""
    if min(a.type.rank, b.type.rank) < 2:
        raise Unsupported(f"operands of rank {a.type.rank} and {b.type.rank}; 2 and more are supported")
    depth = a.type.shape[-1]
    total = None
    for start in range(0, depth, _EXACT):
        stop = min(start + _EXACT, depth)
        left = ctx.emit(node, Slice.along(a.type.rank - 1, start, stop, a.type), a) if depth > _EXACT else a
        right = ctx.emit(node, Slice.along(b.type.rank - 2, start, stop, b.type), b) if depth > _EXACT else b
        part = cast(ctx, node, ctx.emit(node, MatMul(), left, right), DType.I32)
        total = part if total is None else ctx.emit(node, Add(), total, part)
    if total is None:
        raise Unsupported("a product over no elements")
    return total


def _matmul_integer(ctx: Context, node: Node) -> Converted:
    a, b = ctx.value(node, 0), ctx.value(node, 1)
    zero_a = _zero(ctx, node, 2, a.type.shape[-2] if a.type.rank > 1 else 1, a.type.rank)
    zero_b = _zero(ctx, node, 3, -1, b.type.rank)
    return _product(ctx, node, _centred(ctx, node, a, zero_a), _centred(ctx, node, b, zero_b))


def _qlinear_matmul(ctx: Context, node: Node) -> Converted:
    a, b = ctx.value(node, 0), ctx.value(node, 3)
    zero_a = _zero(ctx, node, 2, a.type.shape[-2] if a.type.rank > 1 else 1, a.type.rank)
    product = _product(ctx, node, _centred(ctx, node, a, zero_a), _centred(ctx, node, b, _zero(ctx, node, 5, -1, 2)))
    return _requantized(ctx, node, product, 1, 4)


def _requantized(ctx: Context, node: Node, product: Value, a: int, b: int) -> Value:
    """An i32 product in the scale of the result: inputs 6 and 7."""
    scales = [cast(ctx, node, _scalar(ctx, node, index), DType.F32) for index in (a, b, 6)]
    factor = ctx.emit(node, Div(), ctx.emit(node, Mul(), scales[0], scales[1]), scales[2])
    y = ctx.emit(node, Mul(), cast(ctx, node, product, DType.F32), factor)
    return _saturated(ctx, node, y, _scalar(ctx, node, 7), _target(ctx, node, 7))


def _scalar(ctx: Context, node: Node, index: int) -> Value:
    value = ctx.value(node, index)
    if math.prod(value.type.shape) != 1:
        raise Unsupported(f"input {index} has {math.prod(value.type.shape)} elements; one is supported")
    return ctx.emit(node, Reshape(()), value) if value.type.shape else value


def _convolution(ctx: Context, node: Node, x: Value, w: Value) -> Value:
    """Of centred 8-bit integers, exact, in i32."""
    if x.type.rank not in (3, 4) or x.type.rank != w.type.rank:
        raise Unsupported(f"an input of rank {x.type.rank} and a weight of rank {w.type.rank}")
    windows = read_windows(node, x.type.shape[2:], w.type.shape[2:])
    groups, taps = node.get_int("group", 1), math.prod(w.type.shape[2:])
    channels = max(1, _EXACT // max(taps, 1)) if groups == 1 else w.type.shape[1]
    if taps * min(channels, w.type.shape[1]) > _EXACT:
        raise Unsupported(f"sums of {taps * w.type.shape[1]} products; {_EXACT} are exact")
    op = Conv2d(windows.strides, windows.pads, windows.dilations, groups)
    wide_x, wide_w = widen(ctx, node, x), widen(ctx, node, w)
    total = None
    for start in range(0, w.type.shape[1], channels):
        stop = min(start + channels, w.type.shape[1])
        whole = channels >= w.type.shape[1]
        left = wide_x if whole else ctx.emit(node, Slice.along(1, start, stop, wide_x.type), wide_x)
        right = wide_w if whole else ctx.emit(node, Slice.along(1, start, stop, wide_w.type), wide_w)
        part = cast(ctx, node, ctx.emit(node, op, left, right), DType.I32)
        total = part if total is None else ctx.emit(node, Add(), total, part)
    if total is None:
        raise Unsupported("a weight without channels")
    return narrow(ctx, node, total, x.type.rank)


def _per_output(ctx: Context, node: Node, index: int, rank: int) -> Value | None:
    """A factor of a weight: one, or one for each output channel."""
    if not ctx.has(node, index):
        return None
    value = ctx.value(node, index)
    if math.prod(value.type.shape) == 1:
        return _scalar(ctx, node, index)
    return ctx.emit(node, Reshape((*value.type.shape, *(1,) * (rank - 1))), value)


def _conv_integer(ctx: Context, node: Node) -> Converted:
    x, w = ctx.value(node, 0), ctx.value(node, 1)
    zero_x = _scalar(ctx, node, 2) if ctx.has(node, 2) else None
    zero_w = _per_output(ctx, node, 3, w.type.rank)
    return _convolution(ctx, node, _centred(ctx, node, x, zero_x), _centred(ctx, node, w, zero_w))


def _qlinear_conv(ctx: Context, node: Node) -> Converted:
    x, w = ctx.value(node, 0), ctx.value(node, 3)
    centred_w = _centred(ctx, node, w, _per_output(ctx, node, 5, w.type.rank))
    y = _convolution(ctx, node, _centred(ctx, node, x, _scalar(ctx, node, 2)), centred_w)
    tail = (1,) * (x.type.rank - 2)
    if ctx.has(node, 8):
        bias = cast(ctx, node, ctx.value(node, 8), DType.I32)
        y = ctx.emit(node, Add(), y, ctx.emit(node, Reshape((*bias.type.shape, *tail)), bias))
    scales: list[Value] = [_scalar(ctx, node, 1), ctx.value(node, 4), _scalar(ctx, node, 6)]
    factor = ctx.emit(node, Div(), ctx.emit(node, Mul(), scales[0], scales[1]), scales[2])
    if math.prod(factor.type.shape) > 1:
        factor = ctx.emit(node, Reshape((*factor.type.shape, *tail)), factor)
    y = ctx.emit(node, Mul(), cast(ctx, node, y, DType.F32), factor)
    return _saturated(ctx, node, y, _scalar(ctx, node, 7), _target(ctx, node, 7))


QUANTIZED: dict[str, Callable[[Context, Node], Converted]] = {
    "QuantizeLinear": _quantize_linear,
    "DequantizeLinear": _dequantize_linear,
    "MatMulInteger": _matmul_integer,
    "QLinearMatMul": _qlinear_matmul,
    "ConvInteger": _conv_integer,
    "QLinearConv": _qlinear_conv,
}
