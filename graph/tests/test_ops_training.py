"""What losses and optimizers are made of: against torch, step by step, in float64 and f32; and finite differences."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.graph.errors import UserError
from edgec.graph.ops.accumulate import Accumulate
from edgec.graph.ops.adam_update import AdamUpdate
from edgec.graph.ops.bce_logits import BceLogits
from edgec.graph.ops.bias_correction import BiasCorrection
from edgec.graph.ops.lion_update import LionUpdate
from edgec.graph.ops.sgd_update import SgdUpdate
from edgec.graph.ops.softmax_cross_entropy import SoftmaxCrossEntropy
from edgec.graph.types import DType, tensor
from edgec.tools.testing.gradcheck import check_vjp


def normal(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 99))
def test_softmax_cross_entropy_agrees_with_torch_and_finite_differences(n: int, classes: int, seed: int) -> None:
    logits, targets = normal((n, classes), seed) * 3, np.random.default_rng(seed).dirichlet(np.ones(classes), n)
    targets[0] = 0  # a row that does not count
    losses, slopes = SoftmaxCrossEntropy().reference(logits, targets)
    x = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(x, torch.tensor(targets), reduction="none")
    expected.sum().backward()
    np.testing.assert_allclose(losses, expected.detach().numpy(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(slopes, x.grad.numpy(), rtol=1e-12, atol=1e-14)
    check_vjp(SoftmaxCrossEntropy(), logits, targets, output_gradients=[normal((n,), 1), None], data=[1])


def test_softmax_cross_entropy_survives_large_logits_and_impossible_classes() -> None:
    logits = np.array([[1e4, -1e4], [3e4, 3e4], [0, -np.inf]], np.float32)
    losses, slopes = SoftmaxCrossEntropy().reference(logits, np.array([[1, 0], [0, 1], [1, 0]], np.float32))
    np.testing.assert_allclose(losses, [0, np.log(2), 0], rtol=1e-6)
    assert np.isfinite(slopes).all() and losses.dtype == slopes.dtype == np.float32


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(0, 99))
def test_bce_logits_agrees_with_torch_and_finite_differences(n: int, seed: int) -> None:
    x, t = normal((n, 2), seed) * 10, np.random.default_rng(seed).random((n, 2))
    (y,) = BceLogits().reference(x, t)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(torch.tensor(x), torch.tensor(t), reduction="none")
    np.testing.assert_allclose(y, expected.numpy(), rtol=1e-12, atol=1e-14)
    check_vjp(BceLogits(), x, t, data=[1])
    check_vjp(BceLogits(), np.zeros((n, 2)), t, data=[1])  # where a fresh head begins


def test_bce_logits_survives_large_logits() -> None:
    x = np.array([1e4, -1e4, np.inf], np.float32)
    np.testing.assert_array_equal(BceLogits().reference(x, np.array([1, 0, 0], np.float32))[0], [0, 0, np.inf])


SHAPES = [(3, 2), ()]


def trajectory(op: object, optimizer: type, shape: tuple, dtype: type, states: int, **rule: object) -> float:
    """The largest difference of parameters over six steps with changing rates."""
    adam = isinstance(op, AdamUpdate)
    state = (normal(shape).astype(dtype), *(np.zeros(shape, dtype) for _ in range(states)))
    twin = torch.nn.Parameter(torch.tensor(state[0]))
    torch_optimizer = optimizer([twin], lr=0.1, **rule)
    worst = 0.0
    for step in range(6):
        torch_optimizer.param_groups[0]["lr"] = rate = 0.1 / (step + 1)
        gradient = normal(shape, step + 1).astype(dtype)
        twin.grad = torch.tensor(gradient)
        torch_optimizer.step()
        count = np.asarray(step + 1, dtype)
        corrections = [BiasCorrection(beta).reference(count)[0] for beta in (op.beta1, op.beta2)] if adam else []
        state = op.reference(state[0], gradient, np.asarray(rate), *corrections, *state[1:])
        assert all(array.dtype == dtype for array in state)
        worst = max(worst, np.abs(state[0] - twin.detach().numpy()).max())
    return worst


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-13), (np.float32, 1e-6)])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_sgd_update_is_torchs_rule(shape, dtype, bound, momentum, nesterov, weight_decay) -> None:
    rule = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    op = SgdUpdate(momentum, weight_decay, nesterov)
    assert trajectory(op, torch.optim.SGD, shape, dtype, int(momentum > 0), **rule) < bound


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-13), (np.float32, 1e-6)])
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize(("betas", "epsilon", "weight_decay"), [((0.9, 0.999), 1e-8, 0.0), ((0.8, 0.95), 1e-3, 0.1)])
def test_adam_update_is_torchs_rule(shape, dtype, bound, optimizer, betas, epsilon, weight_decay) -> None:
    op = AdamUpdate(*betas, epsilon, weight_decay, decoupled=optimizer is torch.optim.AdamW)
    rule = {"betas": betas, "eps": epsilon, "weight_decay": weight_decay}
    assert trajectory(op, optimizer, shape, dtype, 2, **rule) < bound


class Lion(torch.optim.Optimizer):
    """Algorithm 2 of arXiv:2302.06675: torch has none."""

    def __init__(self, params: list, lr: float, betas: tuple, weight_decay: float):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                update = (beta1 * m + (1 - beta1) * p.grad).sign()
                p.sub_(group["lr"] * (update + group["weight_decay"] * p))
                m.mul_(beta2).add_((1 - beta2) * p.grad)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-13), (np.float32, 1e-6)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_lion_update_is_the_papers_rule(shape, dtype, bound, weight_decay) -> None:
    rule = {"betas": (0.9, 0.98), "weight_decay": weight_decay}
    assert trajectory(LionUpdate(0.9, 0.98, weight_decay), Lion, shape, dtype, 1, **rule) < bound


@pytest.mark.parametrize("beta", [0.9, 0.999, 0.99999])
def test_the_correction_of_averages_is_precise_from_the_first_step_on(beta: float) -> None:
    steps = np.array([1, 2, 10, 1000, 10**6], np.float32)
    (got,) = BiasCorrection(beta).reference(steps)
    expected = [1 - torch.tensor(beta, dtype=torch.float64).item() ** int(step) for step in steps]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_accumulating_anew_forgets_even_nan() -> None:
    held, new = np.array([np.nan, 1.0], np.float32), np.array([2.0, 3.0], np.float32)
    np.testing.assert_array_equal(Accumulate().reference(held, new, np.float32(0))[0], new)
    np.testing.assert_array_equal(Accumulate().reference(held, new, np.float32(2))[0], [np.nan, 4])


F32 = DType.F32


@pytest.mark.parametrize(
    ("op", "inputs", "message"),
    [
        (SoftmaxCrossEntropy(), (tensor(F32, 2, 3), tensor(DType.I64, 2)), "one dtype and shape"),
        (SoftmaxCrossEntropy(), (tensor(F32, 2, 3, 1), tensor(F32, 2, 3, 1)), r"logits must be \[N,C\]"),
        (BceLogits(), (tensor(F32, 2), tensor(F32, 1)), "one dtype and shape"),
        (SgdUpdate(), (tensor(F32, 2), tensor(F32, 3), tensor(F32)), "parameter's type"),
        (SgdUpdate(0.9), (tensor(F32, 2), tensor(F32, 2), tensor(F32)), "takes 4 operands"),
        (SgdUpdate(nesterov=True), (tensor(F32, 2), tensor(F32, 2), tensor(F32)), "nesterov"),
        (AdamUpdate(), (tensor(F32, 2), tensor(F32, 2), *[tensor(F32)] * 3, tensor(F32, 2), tensor(F32)), "averages"),
        (LionUpdate(), (tensor(F32, 2), tensor(F32, 2), tensor(F32, 2), tensor(F32, 2)), "average"),
        (Accumulate(), (tensor(F32, 2), tensor(F32, 1), tensor(F32)), "what is held"),
    ],
)
def test_operands_that_do_not_fit_are_refused(op, inputs, message) -> None:
    with pytest.raises(UserError, match=message) as caught:
        op.infer(*inputs)
    assert caught.value.code == "E0201"
