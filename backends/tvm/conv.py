"""Strategies for dense and grouped convolutions as implicit GEMMs over NHWC maps. Loads no tvm.

Forward and weight gradient see an input as `Patches`: pointwise convolutions read it where it lies, all others a
zero-padded copy in a workspace, which also turns a row-major input (a program's image) into NHWC. Along a row of
the kernel, taps and channels are contiguous and become one loop.

The input gradient of stride s is s * s products, one for each phase (y mod s, x mod s) of the input: a phase meets
a fixed subset of taps, so it is a convolution of stride 1 of dy, whose results stand s apart. Stride 1 is the case
of one phase.
"""

from __future__ import annotations

import math

from edgec.backends.base import Lowering
from edgec.backends.tvm.depthwise import Taps, gradient_taps
from edgec.backends.tvm.epilogue import BoundEpilogue, same_order
from edgec.backends.tvm.gemm import UNIT, Axis, Panels, Patches, Placement
from edgec.backends.tvm.layouts import convolution_weight, is_depthwise
from edgec.backends.tvm.products import Operand, Request, add_product, add_reduction, choose_tiles
from edgec.backends.tvm.repack import PadSpec, TransposeSpec
from edgec.backends.tvm.tiling import panel_width
from edgec.graph.ir import Value
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.conv2d_weight_grad import Conv2dWeightGrad
from edgec.graph.ops.convolution import Convolution
from edgec.runtime.abi import Storage


def lower_conv2d(request: Request) -> Lowering | None:
    op = request.group.anchor.op
    if not isinstance(op, Conv2d):
        return None
    x, w = request.group.anchor.inputs
    weight, out = w.type.shape, request.group.anchor.output.type.shape
    bound = bind_results(request, Storage.channels_last(out))
    if bound is None or (op.groups > 1 and is_depthwise(op, weight)) or not weight_fits(request, op, w):
        return None
    left = _patches(request, op, x, weight, out)
    columns, depth = weight[0] // op.groups, math.prod(weight[1:])
    right = Panels(depth, columns, panel_width(columns, request.target), op.groups)
    placement = Placement(weight[0], _dense(out), batch_columns=columns)
    add_product(request, _role(op, weight), left, (right, w), placement, bound, op.groups)
    return request.lowering()


def lower_conv2d_weight_grad(request: Request) -> Lowering | None:
    op = request.group.anchor.op
    if not isinstance(op, Conv2dWeightGrad) or op.groups > 1:
        return None
    x, dy = request.group.anchor.inputs
    weight, out = request.group.anchor.output.type.shape, dy.type.shape
    storage = convolution_weight(op, weight, request.target)
    bound = bind_results(request, storage)
    if bound is None or not same_order(request.storage[dy], Storage.channels_last(out)):
        return None
    left = _patches(request, op, x, weight, out)
    columns = weight[0]
    strides = tuple(stride * columns for stride in _dense(out))
    width = panel_width(columns, request.target)
    if left[0].lines == 1:
        strides = (0, 0, columns)
    role = f"{_role(op, weight)}_weight_grad"
    add_reduction(request, role, left, columns, width, (dy.type.size, strides, dy), bound)
    return request.lowering()


def lower_conv2d_input_grad(request: Request) -> Lowering | None:
    op = request.group.anchor.op
    if not isinstance(op, Conv2dInputGrad) or op.groups > 1:
        return None
    dy, w = request.group.anchor.inputs
    weight, out = w.type.shape, request.group.anchor.output.type.shape
    bound = bind_results(request, Storage.channels_last(out))
    if bound is None or not weight_fits(request, op, w):
        return None
    ys, xs = input_grad_phases(op, 0, weight, out), input_grad_phases(op, 1, weight, out)
    top, bottom = _margins(ys, dy.type.shape[2])
    left, right = _margins(xs, dy.type.shape[3])
    source, (height, width) = _padded(request, dy, (top, left, bottom, right))
    for y in ys:
        for x in xs:
            _add_phase(request, op, (y, x), (top, left), source, (height, width), bound)
    return request.lowering()


# -- the input gradient by phases ----------------------------------------


def input_grad_phases(
    op: Conv2dInputGrad, axis: int, weight: tuple[int, ...], out: tuple[int, ...]
) -> tuple[Taps, ...]:
    """Taps along one axis of each phase of an input gradient `out`."""
    size, kernel, stride = out[2 + axis], weight[2 + axis], op.strides[axis]
    phases = range(min(stride, size))
    return tuple(gradient_taps(start, size, kernel, stride, op.dilations[axis], op.pads[axis]) for start in phases)


def _margins(phases: tuple[Taps, ...], size: int) -> tuple[int, int]:
    """Zeros needed before and after `size` positions of dy."""
    used = [phase for phase in phases if phase.taps]
    low = max([0, *(-phase.source(0, 0) for phase in used)])
    return low, max([0, *(phase.source(phase.count - 1, phase.taps - 1) + 1 - size for phase in used)])


def _add_phase(
    request: Request,
    op: Conv2dInputGrad,
    phases: tuple[Taps, Taps],
    margin: tuple[int, int],
    source: Operand,
    size: tuple[int, int],
    bound: BoundEpilogue,
) -> None:
    (y, x), (height, width) = phases, size
    dy, w = request.group.anchor.inputs
    images, columns, out_height, out_width = request.group.anchor.output.type.shape
    depth, _, _, kernel_width = w.type.shape
    line = width * depth
    rows = (Axis(images, height * line), Axis(y.count, line), Axis(x.count, depth))
    taps = (Axis(y.taps, y.step * line), *_run(x.taps, x.step, depth))
    if y.taps and x.taps:
        start = (margin[0] + y.first) * line + (margin[1] + x.first) * depth
    else:
        taps, start = (Axis(0), UNIT, Axis(0)), 0
    placement = Placement(
        columns,
        (out_height * out_width, op.strides[0] * out_width, op.strides[1]),
        start=y.start * out_width + x.start,
    )
    patches = Patches(images * height * line, rows, taps, start)
    if placement.strides == (x.count * y.count, x.count, 1):
        patches = _merged(patches)
    tiles = choose_tiles(request, patches, columns, bound)
    chosen = tuple(i * kernel_width + j for i in y.kernel_taps for j in x.kernel_taps)
    own = panel_width(depth, request.target)
    spec = TransposeSpec(columns, depth, math.prod(w.type.shape[2:]), chosen, own, tiles.width)
    right = Panels(len(chosen) * depth, columns, tiles.width)
    packed = request.workspace(max(1, right.elements))  # a phase without taps reads nothing of it
    if chosen:
        request.call(spec, (w, packed), spec.tasks)
    role = f"{_role(op, w.type.shape)}_input_grad"
    add_product(request, role, (patches, source), (right, packed), placement, bound, tiles=tiles)


# -- what the three have in common ----------------------------------------


def _role(op: Convolution, weight: tuple[int, ...]) -> str:
    return "pointwise" if weight[2:] == (1, 1) and op.groups == 1 else "conv2d"


def bind_results(request: Request, out: Storage) -> BoundEpilogue | None:
    """The epilogue if the outputs lie as `out` does."""
    if any(not same_order(request.storage[value], out) for value in request.group.outputs):
        return None
    if any(0 in value.type.shape for value in request.group.anchor.inputs):
        return None
    return request.epilogue(out)


def weight_fits(request: Request, op: Convolution, w: Value) -> bool:
    return same_order(request.storage[w], convolution_weight(op, w.type.shape, request.target))


def _dense(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Strides of (image, y, x) in rows of an NHWC map."""
    return shape[2] * shape[3], shape[3], 1


def _run(taps: int, step: int, channels: int) -> tuple[Axis, Axis]:
    """Taps of a kernel row and channels: one contiguous run where neighbouring taps read neighbouring pixels."""
    if taps == 1 or step == 1:
        return UNIT, Axis(taps * channels, 1)
    return Axis(taps, step * channels), Axis(channels, 1)


def _patches(
    request: Request, op: Convolution, x: Value, weight: tuple[int, ...], out: tuple[int, ...]
) -> tuple[Patches, Operand]:
    """The input of a convolution as the left matrix, padded where need be."""
    images, channels = x.type.shape[:2]
    source, (height, width) = _padded(request, x, op.pads)
    line = width * channels
    rows = (
        Axis(images, height * line),
        Axis(out[2], op.strides[0] * line),
        Axis(out[3], op.strides[1] * channels),
    )
    if op.groups > 1:
        depth = (
            Axis(weight[2], op.dilations[0] * line),
            Axis(weight[3], op.dilations[1] * channels),
            Axis(weight[1], 1),
        )
    else:
        depth = (Axis(weight[2], op.dilations[0] * line), *_run(weight[3], op.dilations[1], channels))
    patches = Patches(images * height * line, rows, depth, batch_stride=weight[1] if op.groups > 1 else 0)
    return _merged(patches), source


def _merged(patches: Patches) -> Patches:
    """All rows as one line where they are evenly spaced, which gives tiles that do not end with a map's line."""
    images, ys, xs = patches.rows
    if ys.count > 1 and ys.stride != xs.count * xs.stride:
        return patches
    plane = xs.count * ys.count
    if images.count > 1 and images.stride != plane * xs.stride:
        return patches
    rows = (UNIT, UNIT, Axis(plane * images.count, xs.stride))
    return Patches(patches.elements, rows, patches.depth, patches.start, patches.batch_stride)


def nhwc_input(request: Request, x: Value) -> tuple[Operand, tuple[int, int]]:
    """`x` as NHWC and its height and width: itself, or a copy of a row-major input in a workspace."""
    return _padded(request, x, (0, 0, 0, 0))


def _padded(request: Request, x: Value, pads: tuple[int, ...]) -> tuple[Operand, tuple[int, int]]:
    """`x` as zero-padded NHWC and its height and width: itself, or a copy in a workspace."""
    shape, storage = x.type.shape, request.storage[x]
    if not any(pads) and same_order(storage, Storage.channels_last(shape)):
        return x, shape[2:]
    spec = PadSpec(shape, Storage(storage.dims, storage.perm).strides(), tuple(pads))
    padded = request.workspace(spec.arguments[1].elements)
    request.call(spec, (x, padded), spec.tasks)
    return padded, spec.padded
