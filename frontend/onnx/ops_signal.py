"""Fourier transforms as products with constant matrices; `Col2Im`, the adjoint of cutting an image into patches."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from edgec.frontend.onnx.arguments import normal_axis
from edgec.frontend.onnx.context import Context, Converted
from edgec.frontend.onnx.model import Node, Opaque, Unsupported
from edgec.frontend.onnx.ops_indexing import bounded
from edgec.frontend.onnx.ops_logic import cast
from edgec.frontend.onnx.tensors import numpy_dtype
from edgec.graph.ir import Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.div import Div
from edgec.graph.ops.exp import Exp
from edgec.graph.ops.floor import Floor
from edgec.graph.ops.log import Log
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.maximum import Maximum
from edgec.graph.ops.minimum import Minimum
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.pad import Pad
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.slice import Slice
from edgec.graph.ops.sub import Sub
from edgec.graph.ops.transpose import Transpose
from edgec.graph.types import DType


def _dft(ctx: Context, node: Node) -> Converted:
    """x[..., n, ..., 1 or 2] -> y[..., m, ..., 2]: real and imaginary parts stand along the last axis.

    A one-sided inverse takes the first half of a conjugate-symmetric spectrum and gives m real numbers.
    """
    x = ctx.value(node, 0)
    rank, parts = x.type.rank, x.type.shape[-1] if x.type.rank else 0
    if node.opset >= 20:
        axis = int(ctx.known_scalar(node, 2, "the axis")) if ctx.has(node, 2) else -2
    else:
        axis = node.get_int("axis", 1)
    if rank < 2 or parts not in (1, 2) or normal_axis(axis, rank) == rank - 1:
        raise Unsupported(f"axis {axis} of {x.type}")
    axis = normal_axis(axis, rank)
    inverse, one_sided = bool(node.get_int("inverse", 0)), bool(node.get_int("onesided", 0))
    given = x.type.shape[axis]
    whole = 2 * (given - 1) if inverse and one_sided else given
    length = int(ctx.known_scalar(node, 1, "the length")) if ctx.has(node, 1) else whole
    if length < 1:
        raise Unsupported(f"a transform of length {length}")
    read = length // 2 + 1 if inverse and one_sided else length
    matrix = _matrix(read, length, parts, inverse=inverse, one_sided=one_sided)
    x = _resized(ctx, node, x, axis, read)
    perm = (*(a for a in range(rank - 1) if a != axis), axis, rank - 1)
    rows = ctx.emit(node, Transpose(perm), x)
    outer = rows.type.shape[:-2]
    rows = ctx.emit(node, Reshape((math.prod(outer), read * parts)), rows)
    table = ctx.constant(node, matrix.reshape(read * parts, -1).astype(x.type.dtype.numpy))
    y = ctx.emit(node, Reshape((*outer, *matrix.shape[2:])), ctx.emit(node, MatMul(), rows, table))
    return ctx.emit(node, Transpose(tuple(perm.index(a) for a in range(rank))), y)


def _matrix(read: int, length: int, parts: int, *, inverse: bool, one_sided: bool) -> np.ndarray:
    """[read, parts, made, parts of the result]: real and imaginary parts in and out."""
    made = length if inverse or not one_sided else length // 2 + 1
    bounded(4 * read * made)
    turns = np.outer(np.arange(read), np.arange(made)) % length
    factor = np.exp((2j if inverse else -2j) * np.pi * turns / length) / (length if inverse else 1)
    if inverse and one_sided:
        # Every frequency but the first, and the middle one of an even length, stands for its mirror image, too.
        twice = np.where((np.arange(read) == 0) | (2 * np.arange(read) == length), 1, 2)[:, None] * factor
        return np.stack([twice.real, -twice.imag][:parts], 1)[..., None]
    columns = [np.stack([factor.real, factor.imag], -1), np.stack([-factor.imag, factor.real], -1)]
    return np.stack(columns[:parts], 1)


def _resized(ctx: Context, node: Node, x: Value, axis: int, extent: int) -> Value:
    """Cut, or filled up with zeros."""
    have = x.type.shape[axis]
    if have > extent:
        return ctx.emit(node, Slice.along(axis, 0, extent, x.type), x)
    if have == extent:
        return x
    high = [0] * x.type.rank
    high[axis] = extent - have
    return ctx.emit(node, Pad((0,) * x.type.rank, tuple(high)), x)


def _stft(ctx: Context, node: Node) -> Converted:
    """x[B, n, 1 or 2] or x[B, n] -> y[B, frames, m, 2]: a convolution, one filter for each part of a frequency."""
    x = ctx.value(node, 0)
    if x.type.rank == 2:  # as exporters write it
        x = ctx.emit(node, Reshape((*x.type.shape, 1)), x)
    parts = x.type.shape[-1] if x.type.rank == 3 else 0
    step = int(ctx.known_scalar(node, 1, "the frame step"))
    window = ctx.type(node, 2).shape if ctx.has(node, 2) else None
    if ctx.has(node, 3):
        length = int(ctx.known_scalar(node, 3, "the frame length"))
    elif window is not None:
        length = math.prod(window)
    else:
        raise Unsupported("neither a window nor a frame length is given")
    if parts not in (1, 2) or window not in (None, (length,)) or step < 1 or not 1 <= length <= x.type.shape[1]:
        raise Unsupported(f"frames of {length} in steps of {step}, of a signal {x.type} through {window}")
    one_sided = bool(node.get_int("onesided", 1))
    if one_sided and parts == 2:
        raise Unsupported("half a spectrum of complex numbers")
    matrix = _matrix(length, length, parts, inverse=False, one_sided=one_sided)
    made = matrix.shape[2]
    filters = matrix.transpose(2, 3, 1, 0).reshape(2 * made, parts, 1, length).astype(x.type.dtype.numpy)
    filters = _windowed(ctx, node, filters)
    batch, samples, _ = x.type.shape
    signal = ctx.emit(node, Transpose((0, 2, 1)), x) if parts == 2 else x
    signal = ctx.emit(node, Reshape((batch, parts, 1, samples)), signal)
    y = ctx.emit(node, Conv2d((1, step)), signal, filters)
    return ctx.emit(node, Transpose((0, 3, 1, 2)), ctx.emit(node, Reshape((batch, made, 2, y.type.shape[3])), y))


def _windowed(ctx: Context, node: Node, filters: np.ndarray) -> Value:
    """The filters times the window, input 2; at run time if that is computed."""
    if not ctx.has(node, 2):
        return ctx.constant(node, filters)
    window = ctx.entry(node, 2)
    if isinstance(window, Value):
        return ctx.emit(node, Mul(), ctx.constant(node, filters), cast(ctx, node, window, DType.of(filters.dtype)))
    return ctx.constant(node, (filters * window.array).astype(filters.dtype))


def _mel_weight_matrix(ctx: Context, node: Node) -> Converted:
    """[frequencies, bands]: triangles over a spectrum whose corners are evenly spaced in mels.

    In doubles: a corner is the bin that its frequency falls into, and may lie on the border of two.
    """
    bands, length = (
        int(ctx.known_scalar(node, index, f"the {what}"))
        for index, what in enumerate(("number of bands", "length of the transform"))
    )
    if bands < 1 or length < 1:
        raise Unsupported(f"{bands} bands of a transform of length {length}")
    frequencies = length // 2 + 1
    bounded(frequencies * bands)
    dtype = numpy_dtype(node.get_int("output_datatype", 1))
    if isinstance(dtype, Opaque):
        raise Unsupported(f"makes {dtype.what}")
    emit, number = partial(ctx.emit, node), partial(ctx.number, node)
    rate, low, high = (cast(ctx, node, ctx.value(node, index), DType.F64) for index in (2, 3, 4))

    def mels(hertz: Value) -> Value:
        """Without the factor of 2595 / log(10), which comes off again."""
        return emit(Log(), emit(Add(), number(1, hertz), emit(Div(), hertz, number(700, hertz))))

    first, last = mels(low), mels(high)
    steps = ctx.constant(node, np.arange(bands + 2) / (bands + 2))
    edges = emit(Add(), first, emit(Mul(), steps, emit(Sub(), last, first)))
    hertz = emit(Mul(), emit(Sub(), emit(Exp(), edges), number(1, edges)), number(700, edges))
    bins = emit(Floor(), emit(Div(), emit(Mul(), hertz, number(length + 1, hertz)), rate))
    left, peak, right = (emit(Slice((i,), (i + bands,), (1,)), bins) for i in range(3))
    rows = ctx.constant(node, np.arange(frequencies, dtype=np.float64)[:, None])

    def side(before: Value, behind: Value, distance: Value) -> Value:
        """Falls from 1 at the peak to 0 at the corner, which is a bin away at least."""
        width = emit(Maximum(), emit(Sub(), behind, before), number(1, bins))
        return emit(Sub(), number(1, bins), emit(Div(), distance, width))

    rising, falling = side(left, peak, emit(Sub(), peak, rows)), side(peak, right, emit(Sub(), rows, peak))
    triangle = emit(Maximum(), emit(Minimum(), rising, falling), number(0, bins))
    return cast(ctx, node, triangle, DType.of(dtype))


def _col2im(ctx: Context, node: Node) -> Converted:
    """Patches x[N, C * k, L] added up where they come from: the input gradient of a convolution that cuts them out."""
    x = ctx.value(node, 0)
    image, block = ctx.known_ints(node, 1, "the image's shape"), ctx.known_ints(node, 2, "the block's shape")
    if len(image) != 2 or len(block) != 2 or x.type.rank != 3 or min(*image, *block) < 1:
        raise Unsupported(f"patches of rank {x.type.rank}, over {len(image)} axes; 3 and 2 are supported")
    strides, dilations = node.get_ints("strides", (1, 1)), node.get_ints("dilations", (1, 1))
    pads = node.get_ints("pads", (0, 0, 0, 0))
    if len(strides) != 2 or len(dilations) != 2 or len(pads) != 4:
        raise Unsupported("strides, dilations or pads do not fit two axes")
    n, rows, count = x.type.shape
    taps = math.prod(block)
    channels = rows // taps
    op = Conv2dInputGrad(strides, pads, dilations, channels, input_size=image)
    output = op.window(image, block).output if channels * taps == rows and channels else ()
    if math.prod(output) != count or len(output) != 2:
        raise Unsupported(f"{x.type} does not fit an image of {list(image)} in blocks of {list(block)}")
    ones = np.tile(np.eye(taps, dtype=x.type.dtype.numpy).reshape(taps, 1, *block), (channels, 1, 1, 1))
    dy = ctx.emit(node, Reshape((n, rows, *output)), x)
    return ctx.emit(node, op, dy, ctx.constant(node, ones))


SIGNALS = {"DFT": _dft, "STFT": _stft, "MelWeightMatrix": _mel_weight_matrix, "Col2Im": _col2im}
