"""Kernels that add up what they store: moments and gradients of scale and shift behind convolutions, any sizes."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.backends.base import Target
from edgec.backends.targets import find_target
from edgec.backends.tvm.backend import TvmBackend
from edgec.backends.tvm.strategies import lower_group
from edgec.graph.ir import Graph, Role, Value
from edgec.graph.ops.clip_grad import ClipGrad
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.moments import Moments
from edgec.graph.ops.norm_param_grad import NormParamGrad
from edgec.graph.types import DType, tensor
from edgec.tools.testing.group_case import check_group, group_of, storages
from edgec.tools.testing.kernel_call import run_lowering

TARGETS = [find_target(name) for name in ("x86", "x86-64-v3")]
NCHW = (0, 2, 3)

# (images, channels in, channels out, height, width, kernel, stride, depthwise)
CONVOLUTIONS = {
    "pointwise": (2, 24, 40, 13, 11, 1, 1, False),
    "pointwise, last panel of 7 columns": (3, 5, 71, 7, 9, 1, 1, False),
    "pointwise, one column": (2, 19, 1, 17, 3, 1, 1, False),
    "pointwise, blocks end within images": (5, 96, 130, 19, 11, 1, 1, False),
    "pointwise, images of few rows": (7, 64, 33, 3, 3, 1, 1, False),
    "dense, by lines": (2, 3, 37, 29, 23, 3, 2, False),
    "depthwise": (2, 29, 29, 13, 12, 3, 1, True),
    "depthwise, one task for each image": (3, 70, 70, 7, 7, 3, 1, True),
    "depthwise, strided": (2, 48, 48, 30, 22, 3, 2, True),
    "depthwise, many lines": (1, 65, 65, 97, 64, 3, 1, True),
}


def leaf(graph: Graph, role: Role, name: str, *shape: int) -> Value:
    return graph.add_leaf(role, name, tensor(DType.F32, *shape), trainable=role is Role.PARAM)


def convolution(graph: Graph, name: str) -> tuple[Value, dict, tuple[int, ...], tuple[int, ...]]:
    """Weight, attributes, shapes of the input and the result."""
    n, c, o, height, width, kernel, stride, depthwise = CONVOLUTIONS[name]
    pad = kernel // 2
    w = leaf(graph, Role.PARAM, "w", o, 1 if depthwise else c, kernel, kernel)
    attributes = {"strides": (stride, stride), "pads": (pad,) * 4, "groups": c if depthwise else 1}
    size = [(extent + 2 * pad - kernel) // stride + 1 for extent in (height, width)]
    return w, attributes, (n, c, height, width), (n, o, *size)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_moments_of_what_a_convolution_stores(target: Target, name: str, weighted: bool) -> None:
    graph = Graph("moments")
    w, attributes, x, _ = convolution(graph, name)
    y = graph.emit1(Conv2d(**attributes), leaf(graph, Role.INPUT, "x", *x), w)
    weights = [leaf(graph, Role.INPUT, "weights", x[0], 1, 1, 1)] if weighted else []
    moments = graph.emit(Moments(NCHW), y, *weights)
    stems = check_group(graph, target, outputs=[y, *moments])
    assert stems[-2].endswith("_moments") and stems[-1] == "f32_merge_moments"
    assert "f32_part_moments" not in stems


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("name", [name for name in CONVOLUTIONS if "dense" not in name])
@pytest.mark.parametrize("clipped", [False, True])
def test_gradients_of_scale_and_shift_of_what_an_input_gradient_stores(
    target: Target, name: str, clipped: bool
) -> None:
    graph = Graph("gradients")
    w, attributes, x, y = convolution(graph, name)
    dy = leaf(graph, Role.INPUT, "dy", *y)
    dx = graph.emit1(Conv2dInputGrad(**attributes, input_size=x[2:]), dy, w)
    if clipped:
        dx = graph.emit1(ClipGrad(-0.5, 0.5), dx, leaf(graph, Role.INPUT, "clipped", *x))
    normed = leaf(graph, Role.INPUT, "normed", *x)
    mean, inverse = (leaf(graph, Role.INPUT, each, x[1], 1, 1) for each in ("mean", "inverse"))
    sums = graph.emit(NormParamGrad(NCHW), dx, normed, mean, inverse)
    stems = check_group(graph, target, outputs=[dx, *sums])
    assert [stem for stem in stems if stem.endswith("_norm_param_grad")]
    assert "f32_norm_param_grad" not in stems and "f32_norm_param_grad_partial" not in stems


@pytest.mark.parametrize("name", ["pointwise, blocks end within images", "pointwise", "depthwise", "dense, by lines"])
def test_images_of_weight_0_may_hold_anything(name: str) -> None:
    """Far from zero, too: the difference of two moments would have no digit right."""
    target = TARGETS[0]
    graph = Graph("moments")
    w, attributes, x, shape = convolution(graph, name)
    source = leaf(graph, Role.INPUT, "x", *x)
    weights = leaf(graph, Role.INPUT, "weights", x[0], 1, 1, 1)
    y = graph.emit1(Conv2d(**attributes), source, w)
    mean, variance = graph.emit(Moments(NCHW), y, weights)
    storage = storages(graph, target)
    rng = np.random.default_rng(0)
    data = rng.normal(1000.0, 1.0, size=x).astype(np.float32)
    data[-1] = np.nan
    filters = rng.uniform(0.5, 1.0, w.type.shape).astype(np.float32)
    shares = np.zeros(x[0], np.float32)
    shares[:-1] = 1 / (x[0] - 1)
    memory = {v: np.full(v.type.size, np.nan, np.float32) for v in (y, mean, variance)}
    memory |= {source: storage[source].pack(data), w: storage[w].pack(filters), weights: shares}
    run_lowering(lower_group(group_of(graph, [y, mean, variance]), storage, {}, target), memory, target)
    exact = storage[y].unpack(memory[y], shape)[:-1].astype(np.float64)
    np.testing.assert_allclose(memory[mean], exact.mean(NCHW), rtol=1e-5)
    np.testing.assert_allclose(memory[variance], exact.var(NCHW), rtol=1e-3)


def test_moments_of_a_dense_layer() -> None:
    graph = Graph("moments")
    y = graph.emit1(MatMul(), leaf(graph, Role.INPUT, "x", 67, 30), leaf(graph, Role.PARAM, "w", 30, 50))
    check_group(graph, TARGETS[0], outputs=[y, *graph.emit(Moments((0,)), y)])


# What has kernels of its own, or tasks that do not store whole blocks of rows, and axes that are no channels.
APART = {
    "a strided gradient by phases": ((2, 5, 7, 14, 14, 1, 2, False), True, NCHW),
    "a strided depthwise gradient of odd height": ((2, 16, 16, 15, 8, 3, 2, True), True, NCHW),
    "sums of images": ((8, 16, 16, 4, 4, 1, 1, False), False, (1, 2, 3)),
    "moments of fewer rows than a part has": ((8, 16, 16, 2, 2, 1, 1, False), False, NCHW),
}


@pytest.mark.parametrize("name", APART)
def test_what_is_made_apart(name: str) -> None:
    (n, c, o, height, width, kernel, stride, depthwise), gradient, axes = APART[name]
    graph = Graph("apart")
    pad = kernel // 2
    w = leaf(graph, Role.PARAM, "w", o, 1 if depthwise else c, kernel, kernel)
    attributes = {"strides": (stride, stride), "pads": (pad,) * 4, "groups": c if depthwise else 1}
    size = [(extent + 2 * pad - kernel) // stride + 1 for extent in (height, width)]
    if gradient:
        dy = leaf(graph, Role.INPUT, "dy", n, o, *size)
        y = graph.emit1(Conv2dInputGrad(**attributes, input_size=(height, width)), dy, w)
        other = [leaf(graph, Role.INPUT, "x", n, c, height, width)]
        other += [leaf(graph, Role.INPUT, each, c, 1, 1) for each in ("mean", "inverse")]
        sums = graph.emit(NormParamGrad(axes), y, *other)
    else:
        y = graph.emit1(Conv2d(**attributes), leaf(graph, Role.INPUT, "x", n, c, height, width), w)
        weights = leaf(graph, Role.INPUT, "weights", *(n if axis == axes[0] == 0 else 1 for axis in range(4)))
        sums = graph.emit(Moments(axes), y, weights)
    target = TARGETS[0]
    assert not TvmBackend(target).takes_tail(group_of(graph, [y, *sums]))
    stems = check_group(graph, target, outputs=[y, *sums])
    by_themselves = {"f32_norm_param_grad", "f32_norm_param_grad_partial", "f32_mean", "f32_mean_partial"}
    assert by_themselves.intersection(stems)


@pytest.mark.parametrize("target", ["x86", "x86-64-v3", "rpi4", "cortex-m7", "jetson"])
def test_only_vector_processors_take_tails(target: str) -> None:
    graph = Graph("moments")
    w, attributes, x, _ = convolution(graph, "pointwise")
    y = graph.emit1(Conv2d(**attributes), leaf(graph, Role.INPUT, "x", *x), w)
    group = group_of(graph, [y, *graph.emit(Moments(NCHW), y)])
    assert TvmBackend(find_target(target)).takes_tail(group) is (target not in ("cortex-m7", "jetson"))


@pytest.mark.parametrize(
    ("case", "gradient", "wanted"),
    [
        ((8, 24, 144, 24, 24, 1, 1, False), False, True),
        ((8, 144, 24, 24, 24, 1, 1, False), False, False),  # reads six times what it stores
        ((8, 144, 24, 24, 24, 1, 1, False), True, True),
        ((8, 24, 144, 24, 24, 1, 1, False), True, False),
        ((8, 144, 144, 24, 24, 3, 1, True), False, True),
        ((8, 144, 144, 24, 24, 3, 1, True), True, False),  # 2.7 MB are still near
        ((8, 144, 144, 56, 56, 3, 1, True), True, True),
    ],
)
def test_tails_that_pay(case: tuple, gradient: bool, wanted: bool) -> None:
    n, c, o, height, width, kernel, stride, depthwise = case
    graph = Graph("pays")
    w = leaf(graph, Role.PARAM, "w", o, 1 if depthwise else c, kernel, kernel)
    attributes = {"strides": (stride, stride), "pads": (kernel // 2,) * 4, "groups": c if depthwise else 1}
    if gradient:
        y = graph.emit1(
            Conv2dInputGrad(**attributes, input_size=(height, width)),
            leaf(graph, Role.INPUT, "dy", n, o, height, width),
            w,
        )
        statistics = [leaf(graph, Role.INPUT, each, c, 1, 1) for each in ("mean", "inverse")]
        sums = graph.emit(NormParamGrad(NCHW), y, leaf(graph, Role.INPUT, "x", n, c, height, width), *statistics)
    else:
        y = graph.emit1(Conv2d(**attributes), leaf(graph, Role.INPUT, "x", n, c, height, width), w)
        sums = graph.emit(Moments(NCHW), y)
    assert TvmBackend(TARGETS[0]).takes_tail(group_of(graph, [y, *sums])) is wanted
