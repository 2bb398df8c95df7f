"""One element of a convolution, or of its gradients: any groups, strides and dilations."""

from __future__ import annotations

from collections.abc import Sequence

from edgec.backends.tvm._tvm import Expr
from edgec.backends.tvm.builder import Index
from edgec.backends.tvm.generic.loops_code import Variable, inside, loops, where
from edgec.backends.tvm.generic.tensor_code import Tensor, quotient, remainder
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.conv2d_weight_grad import Conv2dWeightGrad
from edgec.graph.ops.window import Window


def conv2d(op: Conv2d, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    """y[n, o, oy, ox]: products added in the order of the weight's elements."""
    x, w = inputs
    n, o, oy, ox = index
    channels = w.shape[1]
    window = op.window(x.shape[2:], w.shape[2:])
    first = quotient(o, w.shape[0] // op.groups) * channels if op.groups > 1 else 0
    total = Variable(0.0)
    with loops(channels, *window.kernel) as (c, ky, kx):
        iy, ix = read_position(window, 0, oy, ky), read_position(window, 1, ox, kx)
        with where(inside_input(window, iy, ix)):
            total.add(x.load([n, first + c, iy, ix]) * w.load([o, c, ky, kx]))
    return (total.value,)


def conv2d_input_grad(op: Conv2dInputGrad, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    """dx[n, c, iy, ix]: from every output that reads it."""
    dy, w = inputs
    n, c, iy, ix = index
    window = op.window(op.input_size, w.shape[2:])
    channels, outputs = w.shape[1], w.shape[0] // op.groups
    first = quotient(c, channels) * outputs if op.groups > 1 else 0
    total = Variable(0.0)
    with loops(outputs, *window.kernel) as (o, ky, kx):
        oy, ox, conditions = reader(window, iy, ix, ky, kx)
        with where(conditions):
            total.add(dy.load([n, first + o, oy, ox]) * w.load([first + o, remainder(c, channels), ky, kx]))
    return (total.value,)


def conv2d_weight_grad(op: Conv2dWeightGrad, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    """dw[o, c, ky, kx]: over images and output positions in row-major order."""
    x, dy = inputs
    o, c, ky, kx = index
    window = op.window(x.shape[2:], op.kernel_size)
    first = quotient(o, dy.shape[1] // op.groups) * (x.shape[1] // op.groups) if op.groups > 1 else 0
    total = Variable(0.0)
    with loops(dy.shape[0], *window.output) as (n, oy, ox):
        iy, ix = read_position(window, 0, oy, ky), read_position(window, 1, ox, kx)
        with where(inside_input(window, iy, ix)):
            total.add(x.load([n, first + c, iy, ix]) * dy.load([n, o, oy, ox]))
    return (total.value,)


def read_position(window: Window, axis: int, out: Index, tap: Index) -> Index:
    """The input row (axis 0) or column (1) that tap `tap` of window `out` reads; in the padding, outside the input."""
    return out * window.strides[axis] + tap * window.dilations[axis] - window.low[axis]


def inside_input(window: Window, iy: Index, ix: Index) -> list[Expr]:
    """What must be tested for a read position to lie in the input; the padding says what cannot happen."""
    conditions = []
    for axis, i in enumerate((iy, ix)):
        last = (window.output[axis] - 1) * window.strides[axis] + (window.kernel[axis] - 1) * window.dilations[axis]
        low = window.low[axis]
        conditions += inside(i, -low, last - low, window.size[axis])
    return conditions


def reader(window: Window, iy: Index, ix: Index, ky: Index, kx: Index) -> tuple[Index, Index, list[Expr]]:
    """The window (oy, ox) whose tap (ky, kx) reads input (iy, ix), and the conditions for there being one."""
    position, conditions = [], []
    for axis, (i, tap) in enumerate(((iy, ky), (ix, kx))):
        low, stride, dilation = window.low[axis], window.strides[axis], window.dilations[axis]
        shifted = i + low - tap * dilation
        lowest = low - (window.kernel[axis] - 1) * dilation
        highest = (window.size[axis] - 1 + low) // stride
        conditions += [shifted >= 0] if lowest < 0 else []
        conditions += [remainder(shifted, stride) == 0] if stride > 1 else []
        out = quotient(shifted, stride)
        conditions += [out < window.output[axis]] if highest >= window.output[axis] else []
        position.append(out)
    return position[0], position[1], conditions
