"""Layers with weights: convolutions, dense layers, batch normalisation. Biases become `reshape` and `add`."""

from __future__ import annotations

import math

from edgec.frontend.convolution3d import conv3d, conv_transpose3d, stacked
from edgec.frontend.onnx.arguments import Pair, Windows, read_sliding, read_windows
from edgec.frontend.onnx.context import Context, Converted
from edgec.frontend.onnx.model import Node, Unsupported
from edgec.graph.ir import Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.batch_norm import BatchNorm
from edgec.graph.ops.batch_norm_train import BatchNormTrain
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.window import Pads


def widen(ctx: Context, node: Node, x: Value) -> Value:
    """x[N,C,L] as [N,C,1,L]: operators over one spatial axis are those over two."""
    if x.type.rank == 4:
        return x
    return ctx.emit(node, Reshape((*x.type.shape[:2], 1, x.type.shape[2])), x)


def narrow(ctx: Context, node: Node, y: Value, rank: int) -> Value:
    """The inverse of `widen` for a result."""
    if y.type.rank == rank:
        return y
    return ctx.emit(node, Reshape((*y.type.shape[:2], y.type.shape[3])), y)


def _kernel(ctx: Context, node: Node) -> tuple[int, ...]:
    """Spatial extents of the weight, input 1, in agreement with the attribute."""
    x, w = ctx.type(node, 0), ctx.type(node, 1)
    if x.rank != w.rank or x.rank not in (3, 4):
        raise Unsupported(f"an input of rank {x.rank} and a weight of rank {w.rank}; 3 or 4 are supported")
    kernel = w.shape[2:]
    if node.get_ints("kernel_shape", kernel) != kernel:
        raise Unsupported(f"kernel_shape does not agree with the weight of shape {list(w.shape)}")
    return kernel


def _with_bias(ctx: Context, node: Node, y: Value) -> Value:
    """y[N,C,H,W] plus the optional input 2 of shape [C]."""
    if not ctx.has(node, 2):
        return y
    bias = ctx.value(node, 2)
    if bias.type.shape != (y.type.shape[1],):
        raise Unsupported(f"the bias has shape {list(bias.type.shape)} for {y.type.shape[1]} channels")
    return ctx.emit(node, Add(), y, ctx.emit(node, Reshape((y.type.shape[1], 1, 1)), bias))


def _conv(ctx: Context, node: Node) -> Converted:
    if ctx.type(node, 0).rank == 5:
        return _conv_3d(ctx, node)
    kernel = _kernel(ctx, node)
    x, w = ctx.value(node, 0), ctx.value(node, 1)
    windows = read_windows(node, x.type.shape[2:], kernel)
    op = Conv2d(windows.strides, windows.pads, windows.dilations, node.get_int("group", 1))
    y = ctx.emit(node, op, widen(ctx, node, x), widen(ctx, node, w))
    return narrow(ctx, node, _with_bias(ctx, node, y), x.type.rank)


def _conv_3d(ctx: Context, node: Node) -> Converted:
    x, w = ctx.value(node, 0), ctx.value(node, 1)
    if w.type.rank != 5 or node.get_ints("kernel_shape", w.type.shape[2:]) != w.type.shape[2:]:
        raise Unsupported(f"a weight of shape {list(w.type.shape)}")
    axes = read_sliding(node, x.type.shape[2:], w.type.shape[2:])
    strides, low, high, dilations = (
        tuple(getattr(axis, name) for axis in axes) for name in ("stride", "low", "high", "dilation")
    )
    writer = ctx.writer(node)
    images = conv3d(writer, x, w, strides, low, high, dilations, node.get_int("group", 1))
    return stacked(writer, _with_bias(ctx, node, images), x.type.shape[0])


def _conv_transpose(ctx: Context, node: Node) -> Converted:
    """The input gradient of the convolution with the same weight, as a forward op."""
    if ctx.type(node, 0).rank == 5:
        return _conv_transpose_3d(ctx, node)
    kernel = _kernel(ctx, node)
    x, w = ctx.value(node, 0), ctx.value(node, 1)
    windows = read_windows(node, x.type.shape[2:], kernel)
    extra = node.get_ints("output_padding", (0,) * len(kernel))
    if len(extra) != len(kernel) or min(extra) < 0:
        raise Unsupported(f"output_padding {list(extra)} does not fit")
    extra = (0, *extra)[-2:]
    whole = [
        stride * (size - 1) + dilation * (k - 1) + 1 + more
        for size, k, stride, dilation, more in zip(
            windows.size, windows.kernel, windows.strides, windows.dilations, extra, strict=True
        )
    ]
    size, pads = _transposed_size(node, windows, whole)
    op = Conv2dInputGrad(windows.strides, pads, windows.dilations, node.get_int("group", 1), input_size=size)
    y = ctx.emit(node, op, widen(ctx, node, x), widen(ctx, node, w))
    return narrow(ctx, node, _with_bias(ctx, node, y), x.type.rank)


def _conv_transpose_3d(ctx: Context, node: Node) -> Converted:
    x, w = ctx.value(node, 0), ctx.value(node, 1)
    if w.type.rank != 5 or node.get_ints("kernel_shape", w.type.shape[2:]) != w.type.shape[2:]:
        raise Unsupported(f"a weight of shape {list(w.type.shape)}")
    if node.get_str("auto_pad", "NOTSET") != "NOTSET" or node.get_ints("output_shape", ()):
        raise Unsupported("a transposed convolution over three axes whose padding is not given")
    strides, dilations = node.get_ints("strides", (1,) * 3), node.get_ints("dilations", (1,) * 3)
    extra, pads = node.get_ints("output_padding", (0,) * 3), node.get_ints("pads", (0,) * 6)
    counts = len(strides), len(dilations), len(extra), len(pads)
    if counts != (3, 3, 3, 6) or min(*strides, *dilations) < 1 or min(*extra, *pads) < 0:
        raise Unsupported(f"strides {strides}, dilations {dilations}, output padding {extra} or pads {pads} do not fit")
    size = tuple(
        (extent - 1) * stride + dilation * (taps - 1) + 1 + more - low - high
        for extent, stride, dilation, taps, more, low, high in zip(
            x.type.shape[2:], strides, dilations, w.type.shape[2:], extra, pads[:3], pads[3:], strict=True
        )
    )
    if min(size) < 1:
        raise Unsupported(f"pads {pads} cut all of the result away")
    writer = ctx.writer(node)
    images = conv_transpose3d(writer, x, w, strides, pads[:3], size, dilations, node.get_int("group", 1))
    return stacked(writer, _with_bias(ctx, node, images), x.type.shape[0])


def _transposed_size(node: Node, windows: Windows, whole: list[int]) -> tuple[Pair, Pads]:
    """Size and padding of a transposed convolution that would make `whole` without any."""
    mode = node.get_str("auto_pad", "NOTSET")
    wanted = node.get_ints("output_shape", ()) or None
    if wanted is None and mode in ("NOTSET", "VALID"):
        pads = windows.pads
        return (whole[0] - pads[0] - pads[2], whole[1] - pads[1] - pads[3]), pads
    if wanted is None:  # SAME: every element of the input makes a stride's worth of results
        size = tuple(n * stride for n, stride in zip(windows.size, windows.strides, strict=True))
    else:
        size = (1, *wanted)[-2:]
    low, high = [], []
    for extent, target in zip(whole, size, strict=True):
        total = max(extent - target, 0)
        small, large = total // 2, total - total // 2
        low.append(small if mode == "SAME_UPPER" else large)
        high.append(large if mode == "SAME_UPPER" else small)
    return size, (*low, *high)


def _gemm(ctx: Context, node: Node) -> Converted:
    """alpha * A' B' + beta * C."""
    if ctx.type(node, 0).rank != 2 or ctx.type(node, 1).rank != 2:
        raise Unsupported("the operands must have rank 2")
    op = MatMul(bool(node.get_int("transA", 0)), bool(node.get_int("transB", 0)))
    y = _scaled(ctx, node, ctx.emit(node, op, ctx.value(node, 0), ctx.value(node, 1)), node.get_float("alpha", 1.0))
    if not ctx.has(node, 2):
        return y
    return ctx.emit(node, Add(), y, _scaled(ctx, node, ctx.value(node, 2), node.get_float("beta", 1.0)))


def _scaled(ctx: Context, node: Node, x: Value, factor: float) -> Value:
    return x if factor == 1 else ctx.emit(node, Mul(), x, ctx.number(node, factor, x))


def _matmul(ctx: Context, node: Node) -> Converted:
    """numpy's matmul: a vector operand gains an axis, which the result loses."""
    a, b = ctx.value(node, 0), ctx.value(node, 1)
    if min(a.type.rank, b.type.rank) < 1:
        raise Unsupported("an operand is a scalar")
    left = ctx.emit(node, Reshape((1, *a.type.shape)), a) if a.type.rank == 1 else a
    right = ctx.emit(node, Reshape((*b.type.shape, 1)), b) if b.type.rank == 1 else b
    y = ctx.emit(node, MatMul(), left, right)
    if min(a.type.rank, b.type.rank) > 1:
        return y
    *leading, m, n = y.type.shape
    shape = (*leading, *(() if a.type.rank == 1 else (m,)), *(() if b.type.rank == 1 else (n,)))
    return ctx.emit(node, Reshape(shape), y)


def _batch_norm_of_batch(ctx: Context, node: Node, epsilon: float, decay: float) -> Converted:
    """In training mode: the statistics of the batch, and what they make of the running ones, as further outputs."""
    if node.opset < 14:
        raise Unsupported("batch normalisation in training mode; export the model for inference, or with opset 14")
    x, gamma, beta, *running = (ctx.value(node, index) for index in range(5))
    y, *batch = ctx.emit_all(node, BatchNormTrain(epsilon), x, gamma, beta)
    if not any(node.outputs[1:]):
        return y
    moved = []
    for old, new in zip(running, batch, strict=True):
        kept, added = (ctx.emit(node, Mul(), v, ctx.number(node, f, v)) for v, f in ((old, decay), (new, 1 - decay)))
        moved.append(ctx.emit(node, Add(), kept, added))
    return y, *moved


def _batch_norm(ctx: Context, node: Node) -> Converted:
    epsilon, decay = node.get_float("epsilon", 1e-5), node.get_float("momentum", 0.9)
    # Up to opset 13 the extra outputs meant training; from 14 on an attribute says so.
    if node.get_int("training_mode", 0) if node.opset >= 14 else any(node.outputs[1:]):
        return _batch_norm_of_batch(ctx, node, epsilon, decay)
    op = BatchNorm(epsilon, 1 - decay)
    x, *statistics = (ctx.value(node, index) for index in range(5))
    if node.opset >= 9 or node.get_int("spatial", 1):
        return ctx.emit(node, op, x, *statistics)
    # Up to opset 8 each place could have statistics of its own: a channel for each.
    places = math.prod(x.type.shape[1:])
    flat = [ctx.emit(node, Reshape((places,)), value) for value in statistics]
    y = ctx.emit(node, op, ctx.emit(node, Reshape((*x.type.shape[:1], places)), x), *flat)
    return ctx.emit(node, Reshape(x.type.shape), y)


LAYERS = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
}
