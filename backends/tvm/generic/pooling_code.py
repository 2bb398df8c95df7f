"""Pooling and its gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgec.backends.tvm._tvm import Expr, tirx
from edgec.backends.tvm.builder import Index, bind, constant, fill_value, select
from edgec.backends.tvm.generic.convolution_code import inside_input, read_position, reader
from edgec.backends.tvm.generic.loops_code import Variable, loops, where
from edgec.backends.tvm.generic.tensor_code import Tensor, unravel
from edgec.graph.ops.avg_pool2d import AvgPool2d
from edgec.graph.ops.avg_pool2d_grad import AvgPool2dGrad
from edgec.graph.ops.max_pool2d import MaxPool2d
from edgec.graph.ops.max_pool2d_grad import MaxPool2dGrad
from edgec.graph.ops.window import Window
from edgec.graph.types import DType


def larger(best: Expr, x: Expr) -> Expr:
    """The larger of two; NaN if one of them is, as in numpy."""
    return select(x == x, select(x > best, x, best), x)  # TVM's `x != x` is never true


def max_pool2d(op: MaxPool2d, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    (x,) = inputs
    n, c, oy, ox = index
    window = Window(x.shape[2:], op.kernel_size, op.strides, op.pads, op.dilations)
    best = Variable(-math.inf, x.dtype)
    with loops(*window.kernel) as (ky, kx):
        iy, ix = read_position(window, 0, oy, ky), read_position(window, 1, ox, kx)
        with where(inside_input(window, iy, ix)):
            best.set(larger(best.value, x.load([n, c, iy, ix])))
    return (best.value,)


def max_pool2d_grad(op: MaxPool2dGrad, inputs: Sequence[Tensor], outputs: Sequence[Tensor | None], row: Index) -> None:
    """One plane (n, c) of dx: zeros, then each window's dy is added where its maximum stands first."""
    dy, x, y = inputs
    (dx,) = outputs
    n, c = unravel(row, x.shape[:2])
    window = Window(x.shape[2:], op.kernel_size, op.strides, op.pads, op.dilations)
    zero = bind(fill_value(row))
    with loops(*x.shape[2:]) as (iy, ix):
        dx.store([n, c, iy, ix], zero)
    with loops(*window.output) as (oy, ox):
        searching = Variable(1, DType.I32)
        with loops(*window.kernel) as (ky, kx):
            iy, ix = read_position(window, 0, oy, ky), read_position(window, 1, ox, kx)
            with where([searching.value == 1, *inside_input(window, iy, ix)]):
                with where([x.load([n, c, iy, ix]) == y.load([n, c, oy, ox])]):
                    dx.store([n, c, iy, ix], dx.load([n, c, iy, ix]) + dy.load([n, c, oy, ox]))
                    searching.set(0)


def avg_pool2d(op: AvgPool2d, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    (x,) = inputs
    n, c, oy, ox = index
    window = op.window(x.shape[2:])
    total = Variable(0.0)
    with loops(*window.kernel) as (ky, kx):
        iy, ix = read_position(window, 0, oy, ky), read_position(window, 1, ox, kx)
        with where(inside_input(window, iy, ix)):
            total.add(x.load([n, c, iy, ix]))
    return (total.value / divisor(window, op.count_include_pad, oy, ox),)


def avg_pool2d_grad(op: AvgPool2dGrad, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    (dy,) = inputs
    n, c, iy, ix = index
    window = op.window
    total = Variable(0.0)
    with loops(*window.kernel) as (ky, kx):
        oy, ox, conditions = reader(window, iy, ix, ky, kx)
        with where(conditions):
            total.add(dy.load([n, c, oy, ox]) / divisor(window, op.count_include_pad, oy, ox))
    return (total.value,)


def divisor(window: Window, count_include_pad: bool, oy: Index, ox: Index) -> Expr:
    """How many taps a window averages over, as f32."""
    if count_include_pad or not any(window.low + window.high):
        return constant(float(window.kernel[0] * window.kernel[1]))
    rows, columns = (_taps_inside(window, axis, out) for axis, out in enumerate((oy, ox)))
    return tirx.Cast("float32", rows * columns)


def _taps_inside(window: Window, axis: int, out: Index) -> Expr:
    count = Variable(0, DType.I32)
    with loops(window.kernel[axis]) as (tap,):
        position = read_position(window, axis, out, tap)
        with where([position >= 0, position < window.size[axis]]):
            count.add(tirx.const(1, "int32"))
    return count.value
