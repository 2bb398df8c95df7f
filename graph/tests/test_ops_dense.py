"""matmul, batch_norm, softmax_cross_entropy and sgd_update: against torch and finite differences."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.graph.errors import UserError
from edgec.graph.ops.base import Op
from edgec.graph.ops.batch_norm import BatchNorm
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.sgd_update import SgdUpdate
from edgec.graph.ops.softmax_cross_entropy import SoftmaxCrossEntropy
from edgec.graph.ops.softmax_cross_entropy_grad import SoftmaxCrossEntropyGrad
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


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 99))
def test_softmax_cross_entropy_agrees_with_torch_and_finite_differences(n: int, classes: int, seed: int) -> None:
    logits = normal((n, classes), seed) * 3
    labels = np.random.default_rng(seed).integers(0, classes, n)
    loss, p = SoftmaxCrossEntropy().reference(logits, labels)
    t = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(t, torch.tensor(labels))
    expected.backward()
    (gradient,) = SoftmaxCrossEntropyGrad().reference(p, labels, np.float64(1.0))
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(p, torch.softmax(t, 1).detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(gradient, t.grad.numpy(), rtol=1e-12, atol=1e-14)
    for cotangents in ([np.float64(0.7), None], [None, normal((n, classes), 5)], [-1.3, normal((n, classes), 6)]):
        check_vjp(SoftmaxCrossEntropy(), logits, labels, output_gradients=cotangents)


def test_softmax_cross_entropy_survives_large_logits() -> None:
    logits = np.array([[1e4, -1e4], [3e4, 3e4]], np.float32)
    loss, p = SoftmaxCrossEntropy().reference(logits, np.array([0, 1]))
    np.testing.assert_allclose(loss, np.log(2) / 2, rtol=1e-6)
    assert np.isfinite(p).all() and loss.dtype == p.dtype == np.float32


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_out_of_range_are_refused(label: int) -> None:
    with pytest.raises(UserError, match=f"label {label} is outside 0..2"):
        SoftmaxCrossEntropy().reference(np.zeros((1, 3)), np.array([label]))


@pytest.mark.parametrize("shape", [(3, 2), ()])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_sgd_update_is_torchs_rule(shape: tuple, momentum: float, nesterov: bool, weight_decay: float) -> None:
    op = SgdUpdate(momentum, weight_decay, nesterov)
    state = (normal(shape, 0), np.zeros(shape))[: 2 if momentum else 1]
    twin = torch.nn.Parameter(torch.tensor(state[0]))
    optimizer = torch.optim.SGD([twin], lr=0.1, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)
    for step in range(4):
        optimizer.param_groups[0]["lr"] = lr = 0.1 / (step + 1)
        gradient = normal(shape, step + 1)
        twin.grad = torch.tensor(gradient)
        optimizer.step()
        state = op.reference(state[0], gradient, np.asarray(lr), *state[1:])
        np.testing.assert_allclose(state[0], twin.detach().numpy(), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(
    ("op", "inputs", "message"),
    [
        (MatMul(), (tensor(DType.F32, 2), tensor(DType.F32, 2, 2)), "rank 2 or more"),
        (MatMul(), (tensor(DType.F32, 2, 3), tensor(DType.F32, 2, 3)), "inner extents 3 and 2"),
        (MatMul(), (tensor(DType.F32, 2, 2, 3), tensor(DType.F32, 3, 3, 3)), "extents 2 and 3"),
        (MatMul(), (tensor(DType.F32, 2, 2), tensor(DType.F64, 2, 2)), "dtype"),
        (BatchNorm(), (tensor(DType.F32, 2),) * 5, "rank 2 or more"),
        (BatchNorm(), (tensor(DType.F32, 2, 3), *[tensor(DType.F32, 2)] * 4), r"must have shape \[3\]"),
        (SoftmaxCrossEntropy(), (tensor(DType.F32, 2, 3), tensor(DType.I32, 2)), r"labels must be i64\[2\]"),
        (SoftmaxCrossEntropy(), (tensor(DType.F32, 2, 3, 1), tensor(DType.I64, 2)), r"logits must be \[N,C\]"),
        (SoftmaxCrossEntropyGrad(), (tensor(DType.F32, 2, 3), tensor(DType.I64, 2), tensor(DType.F32, 1)), "a scalar"),
        (SgdUpdate(), (tensor(DType.F32, 2), tensor(DType.F32, 3), tensor(DType.F32)), "parameter's type"),
        (SgdUpdate(0.9), (tensor(DType.F32, 2), tensor(DType.F32, 2), tensor(DType.F32)), "takes 4 operands"),
        (SgdUpdate(nesterov=True), (tensor(DType.F32, 2), tensor(DType.F32, 2), tensor(DType.F32)), "nesterov"),
    ],
)
def test_operands_that_do_not_fit_are_refused(op: Op, inputs: tuple, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        op.infer(*inputs)
    assert caught.value.code == "E0201"
