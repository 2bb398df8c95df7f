"""matmul and batch_norm: against torch and finite differences."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.graph.errors import UserError
from edgec.graph.ops.base import Op
from edgec.graph.ops.batch_norm import BatchNorm
from edgec.graph.ops.matmul import MatMul
from edgec.graph.types import DType, tensor
from edgec.tools.testing.gradcheck import check_vjp
from edgec.tools.testing.strategies import broadcastable_pairs, normal

torch.set_num_threads(1)


@st.composite
def products(draw: st.DrawFn, max_extent: int = 4) -> tuple[MatMul, np.ndarray, np.ndarray]:
    """Any two operands that multiply, with broadcast leading axes and both ways to store each."""
    leading_a, leading_b = draw(broadcastable_pairs(max_rank=2, max_extent=3))
    m, k, n = (draw(st.integers(1, max_extent)) for _ in range(3))
    op = MatMul(draw(st.booleans()), draw(st.booleans()))
    a = normal((*leading_a, *((k, m) if op.transpose_a else (m, k))), 1)
    b = normal((*leading_b, *((n, k) if op.transpose_b else (k, n))), 2)
    return op, a, b


@settings(max_examples=60, deadline=None)
@given(products())
def test_matmul_agrees_with_torch(case: tuple) -> None:
    op, a, b = case
    ta, tb = torch.tensor(a), torch.tensor(b)
    expected = (ta.mT if op.transpose_a else ta) @ (tb.mT if op.transpose_b else tb)
    (y,) = op.reference(a, b)
    np.testing.assert_allclose(y, expected.numpy(), rtol=1e-12, atol=1e-12)
    types = tensor(DType.F64, *a.shape), tensor(DType.F64, *b.shape)
    assert op.infer(*types) == (tensor(DType.F64, *y.shape),)
    inner = a.shape[-2 if op.transpose_a else -1]
    assert op.cost(types, op.infer(*types)).macs == y.size * inner


@settings(max_examples=30, deadline=None)
@given(products(max_extent=3))
def test_matmul_vjp_agrees_with_finite_differences(case: tuple) -> None:
    check_vjp(*case)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.lists(st.integers(1, 3), max_size=2), st.integers(1, 3))
def test_batch_norm_agrees_with_torch_and_finite_differences(channels: int, spatial: list[int], n: int) -> None:
    op = BatchNorm(epsilon=1e-3)
    x, gamma, beta, mean = (normal(s, i) for i, s in enumerate([(n, channels, *spatial)] + [(channels,)] * 3))
    variance = np.abs(normal((channels,), 4)) + 0.5
    (y,) = op.reference(x, gamma, beta, mean, variance)
    expected = torch.nn.functional.batch_norm(*map(torch.tensor, (x, mean, variance, gamma, beta)), eps=1e-3)
    np.testing.assert_allclose(y, expected.numpy(), rtol=1e-12, atol=1e-12)
    # epsilon enters the gradient of the variance as an f32 constant of the dtype of the gradient: 1e-3 is not exact
    check_vjp(op, x, gamma, beta, mean, variance)


@pytest.mark.parametrize(
    ("op", "inputs", "message"),
    [
        (MatMul(), (tensor(DType.F32, 2), tensor(DType.F32, 2, 2)), "rank 2 or more"),
        (MatMul(), (tensor(DType.F32, 2, 3), tensor(DType.F32, 2, 3)), "inner extents 3 and 2"),
        (MatMul(), (tensor(DType.F32, 2, 2, 3), tensor(DType.F32, 3, 3, 3)), "extents 2 and 3"),
        (MatMul(), (tensor(DType.F32, 2, 2), tensor(DType.F64, 2, 2)), "dtype"),
        (BatchNorm(), (tensor(DType.F32, 2),) * 5, "rank 2 or more"),
        (BatchNorm(), (tensor(DType.F32, 2, 3), *[tensor(DType.F32, 2)] * 4), r"must have shape \[3\]"),
    ],
)
def test_operands_that_do_not_fit_are_refused(op: Op, inputs: tuple, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        op.infer(*inputs)
    assert caught.value.code == "E0201"
