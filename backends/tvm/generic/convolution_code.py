"""One element of a convolution, or of its gradients: any groups, strides and dilations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgec.backends.tvm._tvm import Expr, T
from edgec.backends.tvm.builder import Index, bind
from edgec.backends.tvm.generic.loops_code import Range, Variable, divided, in_team, inside, loops_over, where
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
    rows, row_tests = _taps_inside(window, 0, oy)
    columns, column_tests = _taps_inside(window, 1, ox)
    total = Variable(0.0)
    with loops_over((0, channels), rows, columns) as (c, ky, kx):
        iy, ix = read_position(window, 0, oy, ky), read_position(window, 1, ox, kx)
        with where(row_tests(iy) + column_tests(ix)):
            total.add(x.load([n, first + c, iy, ix]) * w.load([o, c, ky, kx]))
    return (total.value,)


def conv2d_input_grad(op: Conv2dInputGrad, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    """dx[n, c, iy, ix]: from every output that reads it."""
    dy, w = inputs
    n, c, iy, ix = index
    window = op.window(op.input_size, w.shape[2:])
    channels, outputs = w.shape[1], w.shape[0] // op.groups
    first = quotient(c, channels) * outputs if op.groups > 1 else 0
    dense = window.strides == window.dilations == (1, 1)
    ranges = [_taps_reading(window, axis, i) if dense else (0, window.kernel[axis]) for axis, i in enumerate((iy, ix))]
    total = Variable(0.0)
    with loops_over((0, outputs), *ranges) as (o, ky, kx):
        oy, ox, conditions = reader(window, iy, ix, ky, kx)
        with where([] if dense else conditions):
            total.add(dy.load([n, first + o, oy, ox]) * w.load([first + o, remainder(c, channels), ky, kx]))
    return (total.value,)


def conv2d_weight_grad(op: Conv2dWeightGrad, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    """dw[o, c, ky, kx]: over images and output positions in row-major order."""
    x, dy = inputs
    o, c, ky, kx = index
    window = op.window(x.shape[2:], op.kernel_size)
    first = quotient(o, dy.shape[1] // op.groups) * (x.shape[1] // op.groups) if op.groups > 1 else 0
    total = Variable(0.0)

    def add(n: Index, oy: Index, ox: Index, tests: Callable[[Index, Index], list[Expr]]) -> None:
        iy, ix = read_position(window, 0, oy, ky), read_position(window, 1, ox, kx)
        with where(tests(iy, ix)):
            total.add(x.load([n, first + c, iy, ix]) * dy.load([n, o, oy, ox]))

    if in_team():  # whose members find their places in whole windows
        with divided(dy.shape[0], *window.output) as (n, oy, ox):
            add(n, oy, ox, lambda iy, ix: inside_input(window, iy, ix))
    else:
        rows, row_tests = _windows_inside(window, 0, ky)
        columns, column_tests = _windows_inside(window, 1, kx)
        with loops_over((0, dy.shape[0]), rows, columns) as (n, oy, ox):
            add(n, oy, ox, lambda iy, ix: row_tests(iy) + column_tests(ix))
    return (total.total,)


# What a loop runs over, and what is left to test of a read position in it.
_Part = tuple[Range, Callable[[Index], list[Expr]]]


def _taps_inside(window: Window, axis: int, out: Index) -> _Part:
    """The taps of window `out` that lie in the input: a range where taps are neighbours, else all of them and tests."""
    if window.dilations[axis] != 1:
        return (0, window.kernel[axis]), lambda i: _inside_axis(window, axis, i)
    return _clipped(window, axis, out * window.strides[axis], window.kernel[axis]), _nothing


def _windows_inside(window: Window, axis: int, tap: Index) -> _Part:
    """The windows whose tap `tap` lies in the input: a range where windows are neighbours, else all and tests."""
    if window.strides[axis] != 1:
        return (0, window.output[axis]), lambda i: _inside_axis(window, axis, i)
    return _clipped(window, axis, tap * window.dilations[axis], window.output[axis]), _nothing


def _nothing(i: Index) -> list[Expr]:
    return []


def _clipped(window: Window, axis: int, origin: Index, extent: int) -> Range:
    """0 <= k < extent with origin + k - low inside the input."""
    low, size = window.low[axis], window.size[axis]
    start = bind(T.max(0, low - origin)) if low > 0 else 0
    stop = bind(T.min(extent, size + low - origin)) if _last(window, axis) >= size else extent
    return start, stop


def _taps_reading(window: Window, axis: int, i: Index) -> Range:
    """The taps through which some window reads input `i`, for strides and dilations of 1."""
    low, size, taps, outputs = window.low[axis], window.size[axis], window.kernel[axis], window.output[axis]
    start = bind(T.max(0, i + low - outputs + 1)) if size - 1 + low >= outputs else 0
    stop = bind(T.min(taps, i + low + 1)) if low < taps - 1 else taps
    return start, stop


def windows_reading(window: Window, axis: int, i: Index) -> Range:
    """The windows that hold input `i`, of which with dilations some taps may step over it."""
    low, stride, outputs = window.low[axis], window.strides[axis], window.output[axis]
    reach = (window.kernel[axis] - 1) * window.dilations[axis]
    first = T.max(i + (low - reach), 0) if low < reach else i + (low - reach)
    last = quotient(i + low, stride) + 1
    return bind(quotient(first + (stride - 1), stride)), bind(T.min(last, outputs))


def tap_reading(window: Window, axis: int, i: Index, out: Index) -> tuple[Index, list[Expr]]:
    """The tap with which window `out` reads input `i`, which it holds, and the conditions for there being one."""
    shifted, dilation = i + window.low[axis] - out * window.strides[axis], window.dilations[axis]
    return quotient(shifted, dilation), [remainder(shifted, dilation) == 0] if dilation > 1 else []


def read_position(window: Window, axis: int, out: Index, tap: Index) -> Index:
    """The input row (axis 0) or column (1) that tap `tap` of window `out` reads; in the padding, outside the input."""
    return out * window.strides[axis] + tap * window.dilations[axis] - window.low[axis]


def inside_input(window: Window, iy: Index, ix: Index) -> list[Expr]:
    """What must be tested for a read position to lie in the input; the padding says what cannot happen."""
    return _inside_axis(window, 0, iy) + _inside_axis(window, 1, ix)


def _inside_axis(window: Window, axis: int, i: Index) -> list[Expr]:
    return inside(i, -window.low[axis], _last(window, axis), window.size[axis])


def _last(window: Window, axis: int) -> int:
    """The highest position that is read, perhaps behind the input."""
    outputs, taps = window.output[axis] - 1, window.kernel[axis] - 1
    return outputs * window.strides[axis] + taps * window.dilations[axis] - window.low[axis]


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
