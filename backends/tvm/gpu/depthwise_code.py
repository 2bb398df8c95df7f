"""Code of depthwise convolutions on devices."""

from __future__ import annotations

from edgec.backends.base import Target
from edgec.backends.tvm._tvm import Expr
from edgec.backends.tvm.builder import (
    DeviceKernel,
    Index,
    Pointer,
    bind,
    constant,
    local,
    serial,
    shared,
    synchronise,
    when,
)
from edgec.backends.tvm.computation import Memory
from edgec.backends.tvm.generic.convolution_code import inside_input, read_position
from edgec.backends.tvm.generic.kernel_code import emit_element
from edgec.backends.tvm.generic.loops_code import where
from edgec.backends.tvm.generic.tensor_code import Tensor, bound_places, quotient, remainder, unravel
from edgec.backends.tvm.gpu.depthwise import DepthwiseSpec, DepthwiseSumSpec
from edgec.backends.tvm.gpu.parts_code import finish_part
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.window import Window

# (row or column of the source, or its distance from the item's first; what must hold for there being one)
_Source = tuple[Index, list[Expr]]


def emit_device_depthwise(spec: DepthwiseSpec, target: Target) -> DeviceKernel:
    op, span = spec.computation.anchor.op, spec.span
    items = spec.chunks[0] * spec.chunks[1] * spec.chunks[2] * spec.chunks[3]

    def body(*parameters: Pointer | Expr) -> None:
        *pointers, group, item = parameters

        def tensor(memory: Memory) -> Tensor:
            return Tensor(pointers[memory.argument], memory.type, memory.storage)

        source, weights = (tensor(operand) for operand in spec.computation.anchor.operands)
        forward = isinstance(op, Conv2d)
        window = op.window(source.shape[2:] if forward else op.input_size, weights.shape[2:])
        place = bind(group * spec.threads + item)
        with where([place < items] if items % spec.threads else []):
            n, c, chunk, x = bound_places(place, spec.chunks)
            height = spec.computation.shape[2]
            taps = window.kernel
            held = [[bind(weights.load([c, 0, ky, kx])) for kx in range(taps[1])] for ky in range(taps[0])]
            columns = [_column(window, forward, x, kx) for kx in range(taps[1])]
            sums = local(span)
            for j in range(span):
                sums.store(j, constant(0.0))
            value = local(1)
            for distance, uses in _rows(window, forward, span).items():
                row, tests = _row(window, forward, chunk, span, distance)
                for kx, (column, column_tests) in enumerate(columns):
                    value.store(0, constant(0.0))
                    with where(tests + column_tests):
                        value.store(0, source.load([n, c, row, column]))
                    for j, ky in uses:
                        sums.store(j, sums.load(j) + value.load(0) * held[ky][kx])
            for j in range(span):
                y = bind(chunk * span + j)
                with where([y < height] if height % span else []):
                    emit_element(spec.computation, tensor, [n, c, y, x], (sums.load(j),))

    return DeviceKernel(spec.arguments, spec.groups, spec.threads, body)


def _rows(window: Window, forward: bool, span: int) -> dict[int, list[tuple[int, int]]]:
    """Distances of the source rows that an item reads, and for which results and taps: (j, ky)."""
    rows: dict[int, list[tuple[int, int]]] = {}
    stride, dilation, low = window.strides[0], window.dilations[0], window.low[0]
    for j in range(span):
        for ky in range(window.kernel[0]):
            if forward:
                rows.setdefault(j * stride + ky * dilation - low, []).append((j, ky))
            elif (j + low - ky * dilation) % stride == 0:
                rows.setdefault((j + low - ky * dilation) // stride, []).append((j, ky))
    return dict(sorted(rows.items()))


def _row(window: Window, forward: bool, chunk: Index, span: int, distance: int) -> _Source:
    stride = window.strides[0]
    chunks = -(-(window.output[0] if forward else window.size[0]) // span)
    step, extent = (span * stride, window.size[0]) if forward else (span // stride, window.output[0])
    row = bind(chunk * step + distance)
    tests = [row >= 0] if distance < 0 else []
    tests += [row < extent] if (chunks - 1) * step + distance >= extent else []
    return row, tests


def _column(window: Window, forward: bool, x: Index, kx: int) -> _Source:
    stride, dilation, low = window.strides[1], window.dilations[1], window.low[1]
    if forward:
        column = bind(x * stride + (kx * dilation - low))
        tests = [column >= 0] if kx * dilation < low else []
        last = (window.output[1] - 1) * stride + kx * dilation - low
        return column, tests + ([column < window.size[1]] if last >= window.size[1] else [])
    shifted = bind(x + (low - kx * dilation))
    column = bind(quotient(shifted, stride))
    tests = [shifted >= 0] if low < kx * dilation else []
    tests += [remainder(shifted, stride) == 0] if stride > 1 else []
    last = (window.size[1] - 1 + low - kx * dilation) // stride
    return column, tests + ([column < window.output[1]] if last >= window.output[1] else [])


def emit_device_depthwise_sum(spec: DepthwiseSumSpec, target: Target) -> DeviceKernel:
    op = spec.computation.anchor.op
    per_part = -(-spec.positions // spec.parts)
    taps = [(ky, kx) for ky in range(op.kernel_size[0]) for kx in range(op.kernel_size[1])]

    def body(*parameters: Pointer | Expr) -> None:
        *pointers, group, item = parameters

        def tensor(memory: Memory) -> Tensor:
            return Tensor(pointers[memory.argument], memory.type, memory.storage)

        x, dy = (tensor(operand) for operand in spec.computation.anchor.operands)
        window = op.window(x.shape[2:], op.kernel_size)
        channel, part = unravel(group, (spec.channels, spec.parts))
        sums = local(len(taps))
        for i in range(len(taps)):
            sums.store(i, constant(0.0))
        value = local(1)
        with serial(0, -(-per_part // spec.threads)) as turn:
            own = bind(turn * spec.threads + item)
            position = bind(part * per_part + own)
            inside = [own < per_part] if per_part % spec.threads else []
            inside += [position < spec.positions] if per_part * spec.parts != spec.positions else []
            with where(inside):
                n, oy, ox = bound_places(position, (dy.shape[0], *dy.shape[2:]))
                gradient = bind(dy.load([n, channel, oy, ox]))
                for i, (ky, kx) in enumerate(taps):
                    iy, ix = bind(read_position(window, 0, oy, ky)), bind(read_position(window, 1, ox, kx))
                    value.store(0, constant(0.0))
                    with where(inside_input(window, iy, ix)):
                        value.store(0, x.load([n, channel, iy, ix]))
                    sums.store(i, sums.load(i) + value.load(0) * gradient)
        cells = shared(len(taps) * spec.threads)
        for i in range(len(taps)):
            cells.store(i * spec.threads + item, sums.load(i))
        synchronise()
        half = spec.threads // 2
        while half:
            with when(item < half):
                for i in range(len(taps)):
                    place = bind(i * spec.threads + item)
                    cells.store(place, cells.load(place) + cells.load(place + half))
            synchronise()
            half //= 2
        with when(item < len(taps)):
            ky, kx = unravel(item, op.kernel_size)
            total = bind(cells.load(item * spec.threads))
            finish_part(spec, tensor, part, [channel, 0, ky, kx], total)

    return DeviceKernel(spec.arguments, spec.groups, spec.threads, body)
