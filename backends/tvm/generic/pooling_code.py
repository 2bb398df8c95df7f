"""Pooling and its gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgec.backends.tvm._tvm import Expr, T, tirx
from edgec.backends.tvm.builder import MEMORY_DTYPE, Index, bind, cast, constant, larger, like, select
from edgec.backends.tvm.generic.convolution_code import (
    inside_input,
    read_position,
    tap_reading,
    windows_reading,
)
from edgec.backends.tvm.generic.loops_code import Variable, loops, loops_over, where
from edgec.backends.tvm.generic.tensor_code import Tensor, quotient
from edgec.graph.ops.avg_pool2d import AvgPool2d
from edgec.graph.ops.avg_pool2d_grad import AvgPool2dGrad
from edgec.graph.ops.max_pool2d import MaxPool2d
from edgec.graph.ops.max_pool2d_grad import MaxPool2dGrad
from edgec.graph.ops.max_pool2d_positions import MaxPool2dPositions, position_dtype
from edgec.graph.ops.window import Window
from edgec.graph.types import DType


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


def max_pool2d_positions(op: MaxPool2dPositions, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    (x,) = inputs
    n, c, oy, ox = index
    window = Window(x.shape[2:], op.kernel_size, op.strides, op.pads, op.dilations)
    best, position = Variable(-math.inf, x.dtype), Variable(first_tap(window, oy, ox), DType.I32)
    with loops(*window.kernel) as (ky, kx):
        iy, ix = read_position(window, 0, oy, ky), read_position(window, 1, ox, kx)
        with where(inside_input(window, iy, ix)):
            value = bind(x.load([n, c, iy, ix]))
            position.set(taken_position(best.value, value, position.value, tap_number(window, ky, kx)))
            best.set(larger(best.value, value))
    return best.value, cast(position.value, MEMORY_DTYPE[position_dtype(op.kernel_size)])


def tap_number(window: Window, ky: Index, kx: Index) -> Expr:
    number = ky * window.kernel[1] + kx
    return tirx.const(number, "int32") if isinstance(number, int) else number


def first_tap(window: Window, oy: Index, ox: Index) -> Expr:
    """The number of the first tap that lies inside the input: what a window of -inf alone takes."""

    def first(axis: int, out: Index) -> Index:
        if not window.low[axis]:
            return 0
        missing = T.max(window.low[axis] - out * window.strides[axis], 0)
        return quotient(missing + (window.dilations[axis] - 1), window.dilations[axis])

    return bind(tap_number(window, first(0, oy), first(1, ox)))


def taken_position(best: Expr, x: Expr, position: Expr, tap: Expr) -> Expr:
    """The tap that is taken once `x`, of number `tap`, was seen after `best` at `position`."""
    return select(x == x, select(x > best, tap, position), tap)


def max_pool2d_grad(op: MaxPool2dGrad, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    """The sum of what the windows that took this element give it."""
    dy, positions = inputs
    n, c, iy, ix = index
    window = op.window
    total = Variable(0.0)
    with loops_over(*(windows_reading(window, axis, i) for axis, i in enumerate((iy, ix)))) as (oy, ox):
        tap, conditions = tap_at(window, (iy, ix), (oy, ox))
        with where(conditions):
            taken = cast(positions.load([n, c, oy, ox]), "int32")
            total.add(where_taken(taken, tap, dy.load([n, c, oy, ox])))
    return (total.value,)


def tap_at(window: Window, at: Sequence[Index], out: Sequence[Index]) -> tuple[Expr, list[Expr]]:
    """The number of the tap with which window `out` reads the input at `at`, and the conditions for there being one."""
    (ky, row), (kx, column) = (tap_reading(window, axis, at[axis], out[axis]) for axis in (0, 1))
    return tap_number(window, ky, kx), row + column


def where_taken(position: Expr, tap: Expr, dy: Expr) -> Expr:
    return select(tirx.EQ(position, tap), dy, like(dy, 0.0))


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
    with loops_over(*(windows_reading(window, axis, i) for axis, i in enumerate((iy, ix)))) as (oy, ox):
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
