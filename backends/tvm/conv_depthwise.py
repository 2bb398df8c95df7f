"""Strategies for depthwise convolutions and their gradients. Loads no tvm."""

from __future__ import annotations

from edgec.backends.base import Lowering
from edgec.backends.tvm.conv import bind_results, input_grad_phases, nhwc_input, weight_fits
from edgec.backends.tvm.depthwise import DepthwiseReduceSpec, DepthwiseSpec, Taps, forward_taps
from edgec.backends.tvm.layouts import convolution_weight, is_depthwise
from edgec.backends.tvm.products import Request
from edgec.backends.tvm.tiling import channel_tasks, line_tasks
from edgec.backends.tvm.tuning.depthwise import DepthwiseProblem, DepthwiseSumProblem
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.conv2d_weight_grad import Conv2dWeightGrad
from edgec.graph.ops.convolution import Convolution
from edgec.runtime.abi import Storage

Shape = tuple[int, ...]


def lower_depthwise(request: Request) -> Lowering | None:
    """Forward, and the input gradient: the same kernel with other taps."""
    op = request.group.anchor.op
    if not isinstance(op, (Conv2d, Conv2dInputGrad)):
        return None
    source, w = request.group.anchor.inputs
    weight, out = w.type.shape, request.group.anchor.output.type.shape
    if not _covered(op, weight) or not weight_fits(request, op, w):
        return None
    bound = bind_results(request, Storage.channels_last(out))
    if bound is None:
        return None
    if isinstance(op, Conv2d):
        role, ys, xs = "depthwise", (_forward(op, 0, weight, out),), (_forward(op, 1, weight, out),)
        macs = out[0] * out[1] * out[2] * out[3] * weight[2] * weight[3]
    else:
        role, ys, xs = (
            "depthwise_input_grad",
            input_grad_phases(op, 0, weight, out),
            input_grad_phases(op, 1, weight, out),
        )
        n, c, h, width = source.type.shape
        macs = n * c * h * width * weight[2] * weight[3]
    operand, size = nhwc_input(request, source)
    lines = out[0] * max(taps.count for taps in ys)
    tasks = line_tasks(lines, macs)
    problem = DepthwiseProblem(
        out[0] * out[2],
        max(taps.count for taps in xs),
        out[1],
        max(taps.taps for taps in ys),
        max(taps.taps for taps in xs),
        xs[0].source_stride,
        len(bound.epilogue.steps),
        len(bound.epilogue.arguments),
    )
    tile = request.tuning.choose(problem, request.target).results
    spec = DepthwiseSpec(role, out[0], out[1], size, out[2:], weight[2:], ys, xs, bound.epilogue, tile, tasks)
    request.call(spec, (operand, w, *bound.operands), tasks, macs)
    return request.lowering()


def lower_depthwise_weight_grad(request: Request) -> Lowering | None:
    op = request.group.anchor.op
    if not isinstance(op, Conv2dWeightGrad):
        return None
    x, dy = request.group.anchor.inputs
    weight, out = request.group.anchor.output.type.shape, dy.type.shape
    if not _covered(op, weight):
        return None
    bound = bind_results(request, convolution_weight(op, weight, request.target))
    if bound is None:
        return None
    ys, xs = _forward(op, 0, weight, out), _forward(op, 1, weight, out)
    source, size = nhwc_input(request, x)
    gradient, _ = nhwc_input(request, dy)
    macs = out[0] * out[1] * out[2] * out[3] * weight[2] * weight[3]
    problem = DepthwiseSumProblem(
        out[0] * out[2],
        out[3],
        out[1],
        weight[2],
        weight[3],
        op.strides[1],
        len(bound.epilogue.steps),
        len(bound.epilogue.arguments),
    )
    tile = request.tuning.choose(problem, request.target)
    tasks = channel_tasks(out[1], macs)
    spec = DepthwiseReduceSpec(
        "depthwise_weight_grad",
        out[0],
        out[1],
        size,
        ys,
        xs,
        bound.epilogue,
        tile.results,
        tile.kernel_rows,
        tile.lines,
        tasks,
    )
    operands = (source, gradient, *bound.operands)
    if spec.needs_partial:
        operands = (*operands, request.workspace(spec.arguments[-1].elements))
    request.call(spec, operands, tasks, macs)
    return request.lowering()


def _covered(op: Convolution, weight: Shape) -> bool:
    return op.groups > 1 and is_depthwise(op, weight)


def _forward(op: Convolution, axis: int, weight: Shape, out: Shape) -> Taps:
    return forward_taps(out[2 + axis], weight[2 + axis], op.strides[axis], op.dilations[axis], op.pads[axis])
