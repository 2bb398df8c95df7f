"""Moments and batch norm by the statistics of the batch: torch, finite differences, and data far from zero."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgec.graph.errors import UserError
from edgec.graph.ops import BatchNormTrain, Moments, NormParamGrad
from edgec.graph.types import DType, tensor
from edgec.tools.testing.gradcheck import check_vjp, vjp_gradients
from edgec.tools.testing.strategies import normal, shape_and_axes, shapes

torch.set_num_threads(1)


@given(shape_and_axes(), st.integers(0, 99))
def test_moments(drawn, seed):
    shape, axes = drawn
    x = normal(shape, seed)
    mean, variance = Moments(axes).reference(x)
    np.testing.assert_allclose(mean, x.mean(axes), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(variance, x.var(axes), rtol=1e-12, atol=1e-12)
    check_vjp(Moments(axes), x)
    check_vjp(Moments(axes), x, output_gradients=[None, normal(variance.shape, seed + 1)])


def test_weights_leave_rows_out_of_moments():
    """Two of three rows count, whatever stands in the third."""
    x = normal((3, 2, 4))
    x[2] = 1e30
    weights = np.array([0.5, 0.5, 0.0]).reshape(3, 1, 1)
    op = Moments((0, 2))
    mean, variance = op.reference(x, weights)
    np.testing.assert_allclose(mean, x[:2].mean((0, 2)), rtol=1e-12)
    np.testing.assert_allclose(variance, x[:2].var((0, 2)), rtol=1e-12)
    x[2] = 1.0
    cotangents = [normal((2,), 1), normal((2,), 2)]
    check_vjp(op, x, weights, output_gradients=cotangents, data=[1])
    for shape, message in (((3, 2, 1), "broadcast"), ((3, 1), "broadcast"), ((2, 1, 1), "broadcast")):
        with pytest.raises(UserError, match=message):
            op.infer(tensor(DType.F64, 3, 2, 4), tensor(DType.F64, *shape))


@given(shapes(2, 4), st.integers(0, 99))
def test_batch_norm_and_its_gradient_are_torchs(shape, seed):
    shape = (shape[0] + 1, *shape[1:])  # torch, too, wants more than one value for each channel
    x, gamma, beta, dy = normal(shape, seed), *(normal(shape[1:2], seed + i) for i in (1, 2)), normal(shape, seed + 3)
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, gamma, beta)]
    expected = torch.nn.functional.batch_norm(tensors[0], None, None, *tensors[1:], training=True, eps=1e-3)
    op = BatchNormTrain(1e-3)
    y, mean, variance = op.reference(x, gamma, beta)
    axes = tuple(axis for axis in range(len(shape)) if axis != 1)
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(mean, x.mean(axes), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(variance, x.var(axes), rtol=1e-12, atol=1e-12)
    expected.backward(torch.tensor(dy))
    for ours, theirs in zip(vjp_gradients(op, [x, gamma, beta], [dy, None, None]), tensors, strict=True):
        np.testing.assert_allclose(ours, theirs.grad.numpy(), rtol=1e-9, atol=1e-9)


def test_the_gradient_of_batch_norm_by_finite_differences():
    x, gamma, beta = normal((3, 2, 2, 2)), normal((2,), 1), normal((2,), 2)
    check_vjp(BatchNormTrain(1e-2), x, gamma, beta, output_gradients=[normal(x.shape, 3), None, None])


def test_a_variance_far_from_zero_keeps_its_digits():
    """mean(x^2) - mean(x)^2 would give 0 or less here: 4096^2 has no digits left for a variance of 1e-4."""
    x = (4096 + 0.01 * normal((8, 3, 16, 16))).astype(np.float32)
    _, variance = Moments((0, 2, 3)).reference(x)
    np.testing.assert_allclose(variance, x.astype(np.float64).var((0, 2, 3)), rtol=1e-3)
    y, *_ = BatchNormTrain(1e-5).reference(x, np.ones(3, np.float32), np.zeros(3, np.float32))
    wide = x.astype(np.float64)
    exact = (wide - wide.mean((0, 2, 3), keepdims=True)) / np.sqrt(wide.var((0, 2, 3), keepdims=True) + 1e-5)
    np.testing.assert_allclose(y, exact, atol=0.02)


REFUSED = [
    (Moments((1, 0)), (tensor(DType.F32, 3, 4),), "not ascending"),
    (Moments((0,)), (tensor(DType.F32, 0, 4),), "one of no elements"),
    (Moments((2,)), (tensor(DType.F32, 3, 4),), "axis 2 is out of range"),
    (BatchNormTrain(), (tensor(DType.F32, 3), tensor(DType.F32, 3), tensor(DType.F32, 3)), "rank 2 or more"),
    (BatchNormTrain(), (tensor(DType.F32, 3, 4), tensor(DType.F32, 3), tensor(DType.F32, 4)), r"shape \[4\]"),
    (
        NormParamGrad((0,)),
        (tensor(DType.F32, 3, 4), tensor(DType.F32, 3, 4), tensor(DType.F32, 2, 1), tensor(DType.F32)),
        "extents 2 and 3",
    ),
]


@pytest.mark.parametrize(("op", "types", "reason"), REFUSED, ids=str)
def test_operands_that_do_not_fit_are_refused(op, types, reason):
    with pytest.raises(UserError, match=reason):
        op.infer(*types)
