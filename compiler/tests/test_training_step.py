"""Whole training steps, interpreted in float64, against torch's autograd and optimizer; the check has teeth."""

import functools

import numpy as np
import pytest
import torch

from edgec.compiler.passbase import Options
from edgec.compiler.passes.derive_gradients import _depends_on_trainable
from edgec.compiler.pipeline import transform_module
from edgec.compiler.train import Train
from edgec.graph.interp import run
from edgec.graph.ir import Module, Role
from edgec.graph.ops import ALL_OPS, Add, BatchNorm, MaxPool2d, MaxPool2dPositions, Mul
from edgec.graph.ops.base import Op
from edgec.tools.testing.train_cases import CASES
from edgec.tools.testing.twins import Twins

torch.set_num_threads(1)
BATCH = 3
STATISTICS = (".mean", ".variance")


def compiled(twins: Twins, **train: object) -> Module:
    module = twins.module.clone()
    transform_module(module, Options(train=Train(batch=BATCH, **train)))
    return module


def gradients(twins: Twins, update: str = "full") -> tuple[float, dict[str, np.ndarray]]:
    """Loss and gradients of our program: with a learning rate of 1, the step is the gradient."""
    graph = compiled(twins, update=update).programs["train"]
    x, labels = twins.batch(BATCH)
    results = run(graph, {"x": x, "labels": labels, "lr": np.float32(1)})
    step = {name: graph.leaves[name].data - new for name, new in results.updates.items()}
    return float(results.outputs["loss"]), step


def torch_gradients(twins: Twins) -> tuple[float, dict[str, np.ndarray]]:
    weights = twins.weights()
    for name, weight in weights.items():
        weight.requires_grad_(not name.endswith(STATISTICS))
    x, labels = twins.batch(BATCH)
    loss = torch.nn.functional.cross_entropy(twins.forward(weights, torch.tensor(x)), torch.tensor(labels))
    loss.backward()
    return loss.item(), {name: w.grad.numpy() for name, w in weights.items() if w.requires_grad}


def worst_error(twins: Twins) -> float:
    (loss, ours), (torch_loss, theirs) = gradients(twins), torch_gradients(twins)
    assert ours.keys() == theirs.keys()
    return max(abs(loss - torch_loss), *(np.abs(ours[name] - theirs[name]).max() for name in theirs))


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_every_parameter_agree_with_torch(name: str) -> None:
    twins = CASES[name]()
    assert worst_error(twins) < 1e-10
    smallest = min((np.abs(g).max(), parameter) for parameter, g in torch_gradients(twins)[1].items())
    assert smallest[0] > 1e-6, f"{smallest[1]} has no gradient worth comparing"


@pytest.mark.parametrize("name", CASES)
def test_outputs_of_infer_and_eval_agree_with_torch(name: str) -> None:
    twins = CASES[name]()
    module = compiled(twins)
    x, labels = twins.batch(BATCH)
    logits = twins.forward(twins.weights(), torch.tensor(x))
    expected = (torch.softmax(logits, 1) if name == "small_cnn" else logits).numpy()
    assert np.ptp(expected, axis=0).max() > 1e-2, "the outputs do not depend on the input"
    evaluated = run(module.programs["eval"], {"x": x, "labels": labels})
    assert set(evaluated.outputs) == {"y", "loss"} and not evaluated.updates
    np.testing.assert_allclose(evaluated.outputs["y"], expected, rtol=1e-10, atol=1e-12)
    for image in range(BATCH):
        alone = run(module.programs["infer"], {"x": x[image : image + 1]}).outputs["y"]
        np.testing.assert_allclose(alone, expected[image : image + 1], rtol=1e-10, atol=1e-12)


SCHEMES = {
    "head": {"fc2.weight", "fc2.bias"},
    "last:2": {"fc2.weight", "fc2.bias", "fc1.weight", "fc1.bias", "bn5.gamma", "bn5.beta"},
    "bias": {"fc2.weight"}
    | {f"{layer}.bias" for layer in ("squeeze", "excite", "pw", "fc1", "fc2")}
    | {f"bn{norm}.beta" for norm in range(6)},
}


@pytest.mark.parametrize(("update", "names"), SCHEMES.items(), ids=SCHEMES)
def test_partial_updates_have_the_gradients_of_full_ones(update: str, names: set[str]) -> None:
    twins = CASES["separable_net"]()
    _, ours = gradients(twins, update)
    _, theirs = torch_gradients(twins)
    assert ours.keys() == names
    for name, gradient in ours.items():
        np.testing.assert_allclose(gradient, theirs[name], rtol=0, atol=1e-10, err_msg=name)


@pytest.mark.parametrize(
    ("update", "weight_gradients", "input_gradients"),
    [("full", 6, 5), ("bias", 0, 5), ("last:2", 0, 0), ("head", 0, 0)],
)
def test_partial_updates_leave_out_the_backward_work_they_do_not_need(
    update: str, weight_gradients: int, input_gradients: int
) -> None:
    """Biases need the gradients of activations, but of no weight; the image's own gradient is never computed."""
    ops = [node.op.name for node in compiled(CASES["separable_net"](), update=update).programs["train"].nodes]
    assert (ops.count("conv2d_weight_grad"), ops.count("conv2d_input_grad")) == (weight_gradients, input_gradients)


@pytest.mark.parametrize(
    "rule",
    [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}],
    ids=["plain", "momentum", "nesterov"],
)
def test_five_steps_are_those_of_torchs_sgd(rule: dict) -> None:
    twins = CASES["separable_net"]()
    module = compiled(twins, **rule)
    graph = module.programs["train"]
    weights = {name: w.requires_grad_(not name.endswith(STATISTICS)) for name, w in twins.weights().items()}
    optimizer = torch.optim.SGD([w for w in weights.values() if w.requires_grad], lr=1.0, **rule)
    held: dict[str, np.ndarray] = {}
    losses = []
    for step in range(5):
        x, labels = twins.batch(BATCH, seed=step)
        rate = np.float32(0.5 / (step + 1))
        results = run(graph, {"x": x, "labels": labels, "lr": rate, **held})
        held = results.updates
        optimizer.param_groups[0]["lr"] = float(rate)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(twins.forward(weights, torch.tensor(x)), torch.tensor(labels))
        loss.backward()
        optimizer.step()
        losses.append(abs(loss.item() - results.outputs["loss"]))
    assert max(losses) < 1e-9
    for name, weight in weights.items():
        if weight.requires_grad:
            np.testing.assert_allclose(held[name], weight.detach().numpy(), rtol=0, atol=1e-9, err_msg=name)
    states = {leaf.name for leaf in graph.by_role(Role.STATE)}
    assert states == ({f"{name}/momentum" for name, w in weights.items() if w.requires_grad} if rule else set())


def scaled_vjp(op: type[Op], factor: float) -> object:
    """The op's `vjp` with every gradient off by one percent."""
    original = op.vjp

    def vjp(self: Op, build: object, inputs: tuple, outputs: tuple, cotangents: tuple) -> tuple:
        wrong = build.constant(np.full((), factor))
        scaled = tuple(None if dy is None else build.emit(Mul(), dy, wrong) for dy in cotangents)
        return original(self, build, inputs, outputs, scaled)

    return vjp


# Transposed convolution is the gradient of a convolution and an op of models; these are gradients alone.
# The loss of `bce_logits` is broken in test_losses, what training alone has in tests of the passes that write it.
GRADIENTS_ONLY = {"avg_pool2d_grad", "conv2d_weight_grad", "bce_logits", "batch_norm_train", "dropout"}
FORWARD_OPS = [op for op in ALL_OPS if op.no_gradient is None and op is not BatchNorm and op.name not in GRADIENTS_ONLY]


@functools.cache
def ops_of(name: str) -> set[type[Op]]:
    """Through what a parameter reaches the loss of a model, as it is differentiated."""
    graph = compiled(CASES[name]()).programs["train"]
    needed = _depends_on_trainable(graph, graph.nodes)
    path = [node for node in graph.ancestors([graph.outputs["loss"]]) if any(v in needed for v in node.inputs)]
    kinds = {type(node.op) for node in path}
    return kinds | {MaxPool2d} if MaxPool2dPositions in kinds else kinds  # which it has become


@pytest.mark.parametrize("op", FORWARD_OPS, ids=lambda op: op.name)
def test_breaking_any_one_vjp_is_seen(op: type[Op], monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [name for name in CASES if op in ops_of(name)]
    assert cases, f"no model here contains {op.name}: its gradient is not covered"
    monkeypatch.setattr(op, "vjp", scaled_vjp(op, 1.01))
    # In some of them it may stand behind a decision, and have no gradient.
    assert any(worst_error(CASES[name]()) > 1e-6 for name in cases)


def test_gradients_of_a_value_with_several_readers_are_summed() -> None:
    """The dense layer reads h + h in place of h, which is twice its weight: overwriting would lose half."""
    twins = CASES["small_cnn"]()
    graph = twins.module.programs["infer"]
    dense = next(node for node in graph.nodes if node.op.name == "matmul")
    features = dense.inputs[0]
    graph.set_input(dense, 0, graph.emit1(Add(), features, features, before=dense))
    once = twins.forward

    def forward(weights: dict, x: torch.Tensor) -> torch.Tensor:
        scaled = dict(weights)
        scaled["fc.weight"] = weights["fc.weight"] * 2
        return once(scaled, x)

    twins.forward = forward
    assert worst_error(twins) < 1e-10
