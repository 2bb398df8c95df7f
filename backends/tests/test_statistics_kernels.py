"""Scheduled kernels of moments and of the gradients of scale and shift: channels last, rows, few and many results."""

import numpy as np
import pytest

from edgec.backends.targets import find_target
from edgec.backends.tvm.generic.kernel import lower_generic
from edgec.backends.tvm.strategies import lower_group
from edgec.graph.ir import Graph, Role
from edgec.graph.ops.moments import Moments
from edgec.graph.ops.norm_param_grad import NormParamGrad
from edgec.graph.types import DType, tensor
from edgec.tools.testing.group_case import check_group, group_of, storages
from edgec.tools.testing.kernel_call import run_lowering

TARGETS = [find_target(name) for name in ("x86", "x86-64-v3")]
CASES = [
    ((2, 19, 3, 5), (0, 2, 3)),
    ((4, 64, 16, 16), (0, 2, 3)),
    ((4, 3, 48, 48), (0, 2, 3)),
    ((3, 33, 1, 1), (0, 2, 3)),
    ((13, 29), (0,)),
    ((13, 290), (1,)),
    ((2, 7, 65), (0, 1)),
    ((64, 31), (0, 1)),
    ((3, 70, 19, 29), (0, 2, 3)),  # parts of 184 and 183 rows
    ((2, 16, 337, 1), (0, 2, 3)),
]


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize(("shape", "axes"), CASES)
@pytest.mark.parametrize("weighted", [False, True])
def test_moments(target, shape: tuple[int, ...], axes: tuple[int, ...], weighted: bool):
    graph = Graph("moments")
    x = graph.add_leaf(Role.INPUT, "x", tensor(DType.F32, *shape))
    row = tuple(n if axis == axes[0] else 1 for axis, n in enumerate(shape))
    weights = [graph.add_leaf(Role.INPUT, "weights", tensor(DType.F32, *row))] if weighted else []
    outputs = graph.emit(Moments(axes), x, *weights)
    stems = check_group(graph, target, outputs=list(outputs))
    made = {stem.removesuffix("_partial").removesuffix("_combine") for stem in stems}
    assert {"f32_mean", "f32_variance"} <= made or made == {"f32_part_moments", "f32_merge_moments"}


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize(
    ("lower", "size", "stem"),
    [
        (lower_group, (31, 29), "f32_merge_moments"),
        (lower_group, (2, 3), "f32_variance"),
        (lower_generic, (31, 29), "f32_moments_generic"),
    ],
)
def test_moments_far_from_zero(target, lower, size: tuple[int, int], stem: str):
    """The difference of two moments would have no digit right. Images that weigh nothing may hold anything finite."""
    data = np.random.default_rng(0).normal(1000.0, 0.1, size=(3, 48, *size)).astype(np.float32)
    data[2] = 3e38
    graph = Graph("moments")
    x = graph.add_leaf(Role.INPUT, "x", tensor(DType.F32, *data.shape))
    weights = graph.add_leaf(Role.INPUT, "weights", tensor(DType.F32, 3, 1, 1, 1))
    mean, variance = graph.emit(Moments((0, 2, 3)), x, weights)
    storage = storages(graph, target)
    lowering = lower(group_of(graph, [mean, variance]), storage, {}, target)
    assert stem in [call.spec.stem for call in lowering.calls]
    memory = {v: np.full(v.type.size, np.nan, np.float32) for v in (mean, variance)}
    memory |= {x: storage[x].pack(data), weights: np.array([0.5, 0.5, 0.0], np.float32)}
    run_lowering(lowering, memory, target)
    exact = data[:2].astype(np.float64)
    np.testing.assert_allclose(memory[mean], exact.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(memory[variance], exact.var((0, 2, 3)), rtol=1e-2)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize(("shape", "axes"), CASES)
@pytest.mark.parametrize("with_mean", [True, False])
def test_gradients_of_scale_and_shift(target, shape: tuple[int, ...], axes: tuple[int, ...], with_mean: bool):
    """Statistics of the kept axes (batch norm), or of the reduced ones (layer norm); root mean squares have no mean."""
    own = axes if len(shape) < 4 else tuple(a for a in range(4) if a not in axes)
    row = tuple(n if axis in own else 1 for axis, n in enumerate(shape))
    row = row[1:] if row[0] == 1 else row
    graph = Graph("gradients")
    dy, x = (graph.add_leaf(Role.INPUT, name, tensor(DType.F32, *shape)) for name in ("dy", "x"))
    mean = graph.add_leaf(Role.INPUT, "mean", tensor(DType.F32, *(row if with_mean else ())))
    inverse = graph.add_leaf(Role.INPUT, "inverse", tensor(DType.F32, *row))
    outputs = graph.emit(NormParamGrad(axes), dy, x, mean, inverse)
    check_group(graph, target, outputs=list(outputs))
