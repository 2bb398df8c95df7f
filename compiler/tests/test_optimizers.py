"""Optimizers of whole models against torch.optim in float64: every rule, groups, clipping, accumulation, guards."""

from collections.abc import Iterable

import numpy as np
import pytest
import torch

from edgec.compiler.compile import compile_module
from edgec.compiler.memory.report import memory_reports
from edgec.compiler.parameter_groups import ParameterGroup, weights_of
from edgec.compiler.passbase import Options
from edgec.compiler.pipeline import transform_module
from edgec.compiler.sparse.scheme import Scheme, WeightRule
from edgec.compiler.train import Train
from edgec.graph.errors import UserError
from edgec.graph.interp import run
from edgec.graph.ir import Module, Role
from edgec.tools.testing.programs import initialise
from edgec.tools.testing.reference_backend import ReferenceBackend
from edgec.tools.testing.train_cases import CASES, Twins
from edgec.tools.testing.widen import narrowed

torch.set_num_threads(1)
STATISTICS = (".mean", ".variance")
STEPS = 5


def compiled(twins: Twins, batch: int, **train: object) -> Module:
    module = twins.module.clone()
    transform_module(module, Options(train=Train(batch=batch, **train)))
    return module


class Machine:
    """A module with the states that its programs leave; steps as `Model.step` takes them."""

    def __init__(self, module: Module):
        self.programs = module.programs
        self.held: dict[str, np.ndarray] = {}

    def run(self, program: str, feeds: dict) -> dict[str, np.ndarray]:
        graph = self.programs[program]
        results = run(graph, feeds | {name: a for name, a in self.held.items() if name in graph.leaves})
        self.held |= results.updates
        return results.outputs

    def step(self, x: np.ndarray, labels: np.ndarray, rate: float, **scalars: object) -> float:
        feeds, lr = {"x": x, "labels": labels}, {"lr": np.float32(rate), **scalars}
        if "apply" not in self.programs:
            return float(self.run("train", feeds | lr)["loss"])
        late = {name: scalar for name, scalar in lr.items() if name in self.programs["apply"].leaves}
        outputs = self.run("train", feeds | {name: scalar for name, scalar in lr.items() if name not in late})
        if outputs["due"]:
            self.run("apply", late)
        return float(outputs["loss"])


def trainable(twins: Twins) -> dict[str, torch.Tensor]:
    weights = twins.weights()
    for name, weight in weights.items():
        weight.requires_grad_(not name.endswith(STATISTICS))
    return weights


def torch_steps(twins: Twins, weights: dict, optimizer: torch.optim.Optimizer, rates: Iterable[float], batch: int,
                clip_norm: float | None = None, clip_value: float | None = None) -> list[float]:  # fmt: skip
    losses, base = [], [group["lr"] for group in optimizer.param_groups]
    trained = [w for w in weights.values() if w.requires_grad]
    for step, rate in enumerate(rates):
        for group, factor in zip(optimizer.param_groups, base, strict=True):
            group["lr"] = factor * float(np.float32(rate))
        x, labels = twins.batch(batch, seed=step)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(twins.forward(weights, torch.tensor(x)), torch.tensor(labels))
        loss.backward()
        if clip_norm:
            torch.nn.utils.clip_grad_norm_(trained, clip_norm)
        if clip_value:
            torch.nn.utils.clip_grad_value_(trained, clip_value)
        optimizer.step()
        losses.append(loss.item())
    return losses


def check(twins: Twins, module: Module, weights: dict, losses: list[float], rates: Iterable[float], batch: int,
          bound: float = 1e-9) -> None:  # fmt: skip
    machine = Machine(module)
    for step, (rate, expected) in enumerate(zip(rates, losses, strict=True)):
        assert abs(machine.step(*twins.batch(batch, seed=step), rate) - expected) < bound
    for name, weight in weights.items():
        if weight.requires_grad:
            np.testing.assert_allclose(machine.held[name], weight.detach().numpy(), rtol=0, atol=bound, err_msg=name)


RULES = {
    "adam": (torch.optim.Adam, {}, {}),
    "adam decay": (torch.optim.Adam, {"betas": (0.8, 0.95), "weight_decay": 0.1}, {"eps": 1e-4}),
    "adamw": (torch.optim.AdamW, {}, {}),
    "adamw decay": (torch.optim.AdamW, {"weight_decay": 0.3}, {}),
}


@pytest.mark.parametrize(("name", "model"), [(rule, "small_cnn") for rule in RULES] + [("adamw", "separable_net")])
def test_steps_are_those_of_torchs_optimizers(name: str, model: str) -> None:
    optimizer, rule, renamed = RULES[name]
    twins, rates = CASES[model](), [0.01 / (step + 1) for step in range(STEPS)]
    weights = trainable(twins)
    torch_optimizer = optimizer([w for w in weights.values() if w.requires_grad], lr=1.0, **rule, **renamed)
    losses = torch_steps(twins, weights, torch_optimizer, rates, 3)
    epsilon = {"epsilon": renamed["eps"]} if renamed else {}
    module = compiled(twins, 3, optimizer=name.split()[0], **rule, **epsilon)
    # The corrections of averages are f32, as all that is computed from the count of steps.
    check(twins, module, weights, losses, rates, 3, bound=1e-7)


@pytest.mark.parametrize("clip", [{"clip_norm": 0.5}, {"clip_norm": 1e6}, {"clip_value": 0.01}], ids=str)
def test_clipped_steps_are_torchs(clip: dict) -> None:
    twins, rates = CASES["small_cnn"](), [0.5] * STEPS
    weights = trainable(twins)
    losses = torch_steps(
        twins, weights, torch.optim.SGD(list(weights.values()), lr=1.0, momentum=0.9), rates, 3, **clip
    )
    check(twins, compiled(twins, 3, momentum=0.9, **clip), weights, losses, rates, 3)


def test_groups_have_rates_and_decays_of_their_own() -> None:
    """The first group that matches counts; biases and norms do not decay unless a group says so."""
    twins, rates = CASES["separable_net"](), [0.01] * STEPS
    weights = trainable(twins)
    chosen = {name: w for name, w in weights.items() if w.requires_grad}

    def group(names: set[str], rate: float, decay: float) -> dict:
        return {"params": [chosen[name] for name in sorted(names)], "lr": rate, "weight_decay": decay}

    head, slow = {"fc2.weight", "fc2.bias"}, {"fc1.bias"}
    matrices = {name for name, w in chosen.items() if w.ndim > 1} - head
    groups = [
        group(head, 3.0, 0.5), group(slow, 0.1, 0.0), group(matrices, 1.0, 0.2),
        group(set(chosen) - head - slow - matrices, 1.0, 0.0),
    ]  # fmt: skip
    losses = torch_steps(twins, weights, torch.optim.AdamW(groups), rates, 3)
    spec = (ParameterGroup("fc2.*", rate=3.0, weight_decay=0.5), ParameterGroup("fc1.b*", rate=0.1))
    module = compiled(twins, 3, optimizer="adamw", weight_decay=0.2, decay="weights", groups=spec)
    check(twins, module, weights, losses, rates, 3, bound=1e-7)


def test_weights_are_what_layers_multiply_with_at_any_batch() -> None:
    twins = CASES["separable_net"]()
    for batch in (1, 3):
        graph = compiled(twins, batch).programs["train"]
        trained = {leaf.name for leaf in graph.leaves.values() if leaf.trainable}
        expected = {name for name, w in twins.weights().items() if w.ndim > 1}
        assert weights_of(graph) & trained == expected


def test_a_group_that_matches_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="no trained parameter is called `head.*`") as caught:
        compiled(CASES["small_cnn"](), 3, groups=(ParameterGroup("head.*"),))
    assert caught.value.code == "E0302"


EXTRAS = {
    "sgd": {"momentum": 0.9},
    "adamw": {"optimizer": "adamw"},
    "clipped": {"momentum": 0.9, "clip_norm": 0.5},
    "clipped by value": {"clip_value": 0.01},
    "weighted": {"class_weights": (0.5, 1.0, 2.0, 3.0, 0.1), "ignore_index": 1, "label_smoothing": 0.1},
    "guarded": {"guard": "grads"},
}


@pytest.mark.parametrize("extra", EXTRAS.values(), ids=EXTRAS)
def test_accumulation_is_one_step_of_the_large_batch(extra: dict) -> None:
    """Four steps of three rows, one of them short, are one of eleven rows; twice, so that a round begins anew."""
    twins = CASES["small_cnn"]()
    large, small = Machine(compiled(twins, 12, **extra)), Machine(compiled(twins, 3, accumulate=4, **extra))
    for round_ in range(3):
        x, labels = twins.batch(12, seed=round_)
        large.step(x, labels, 0.1, rows=np.int32(11))
        before = {name: array.copy() for name, array in small.held.items() if "/" not in name}
        for part in range(4):
            rows = slice(3 * part, 3 * part + 3)
            assert all(np.array_equal(small.held[name], array) for name, array in before.items())
            small.step(x[rows], labels[rows], 0.1, rows=np.int32(2 if part == 3 else 3))
        for name, array in large.held.items():
            np.testing.assert_allclose(small.held[name], array, rtol=0, atol=1e-12, err_msg=name)
        assert small.held["held/steps"] == 0


def test_what_is_held_can_be_applied_early() -> None:
    twins = CASES["small_cnn"]()
    large, small = Machine(compiled(twins, 6)), Machine(compiled(twins, 3, accumulate=4))
    x, labels = twins.batch(6)
    large.step(x, labels, 0.1)
    for part in range(2):
        small.step(x[3 * part : 3 * part + 3], labels[3 * part : 3 * part + 3], 0.1)
    assert small.held["held/steps"] == 2
    small.run("apply", {"lr": np.float32(0.1)})
    np.testing.assert_allclose(small.held["fc.weight"], large.held["fc.weight"], rtol=0, atol=1e-12)


def test_a_round_that_was_refused_is_dropped() -> None:
    twins = CASES["small_cnn"]()
    machine = Machine(compiled(twins, 3, accumulate=2))
    for seed in range(2):  # a full round that nobody applies
        machine.run("train", dict(zip(("x", "labels"), twins.batch(3, seed=seed), strict=True)))
    machine.held["fc.weight/held"][:] = np.nan
    fresh = Machine(compiled(twins, 3, accumulate=2))
    for seed in (2, 3):
        for each in (machine, fresh):
            each.step(*twins.batch(3, seed=seed), 0.1)
    np.testing.assert_array_equal(machine.held["fc.weight"], fresh.held["fc.weight"])


def test_the_norm_of_gradients_is_watched_where_asked() -> None:
    twins = CASES["small_cnn"]()
    for options, watched in (({"guard": "grads"}, True), ({"clip_norm": 1.0}, False)):
        graph = compiled(twins, 3, **options).programs["train"]
        assert (graph.guard == "gradient_norm") is watched and "gradient_norm" in graph.outputs
    weights = trainable(twins)
    x, labels = twins.batch(3)
    torch.nn.functional.cross_entropy(twins.forward(weights, torch.tensor(x)), torch.tensor(labels)).backward()
    expected = torch.sqrt(sum((w.grad**2).sum() for w in weights.values())).item()
    outputs = run(graph, {"x": x, "labels": labels, "lr": np.float32(1)}).outputs
    np.testing.assert_allclose(outputs["gradient_norm"], expected, rtol=1e-12)


def test_states_of_a_step_are_those_of_both_programs() -> None:
    twins = CASES["small_cnn"]()
    module = initialise(narrowed(twins.module))
    options = Options(train=Train(batch=3, momentum=0.9, accumulate=2))
    result = compile_module(module, [ReferenceBackend()], options)
    weights = sum(4 * w.numel() for w in twins.weights().values())
    assert result.report.programs["train"].state_bytes == 2 * weights + 4 + 4
    held = {report.held_bytes for report in memory_reports(result.artifact.manifest)}
    assert held == {weights}


@pytest.mark.parametrize(("optimizer", "accumulate"), [("sgd", 1), ("adamw", 1), ("lion", 2)])
def test_rates_of_one_change_nothing_and_rates_of_none_train_nothing(optimizer: str, accumulate: int) -> None:
    """To the bit, and what has the rate 0 does not count in the norm that is bounded."""
    twins = CASES["small_cnn"]()
    train = {"optimizer": optimizer, "accumulate": accumulate, "clip_norm": 0.1, "weight_decay": 0.1}
    plain, given = (Machine(compiled(twins, 3, **train, **rates)) for rates in ({}, {"rates": "runtime"}))
    update = Scheme("none", weights=(WeightRule("conv2.weight"),))
    alone = Machine(compiled(twins, 3, **train, update=update))
    names = [leaf.name for leaf in given.programs["train"].by_role(Role.PARAM)]
    names = [name for name in names if name.endswith((".weight", ".bias"))]
    before = {name: twins.module.programs["infer"].leaves[name].data for name in names}
    for step in range(4):
        batch = twins.batch(3, seed=step)
        ones = {f"{name}/rate": np.float32(1) for name in names}
        assert plain.step(*batch, 0.05) == given.step(*batch, 0.05, **ones)
    for name in names:
        np.testing.assert_array_equal(given.held[name], plain.held[name])
        assert not np.array_equal(given.held[name], before[name])
    given.held.clear()
    for step in range(4):
        batch = twins.batch(3, seed=step)
        rates = {f"{name}/rate": np.float32(name == "conv2.weight") for name in names}
        assert alone.step(*batch, 0.05) == pytest.approx(given.step(*batch, 0.05, **rates), rel=1e-9)
    for name in names:
        if name == "conv2.weight":
            np.testing.assert_allclose(given.held[name], alone.held[name], rtol=1e-9)
        else:
            np.testing.assert_array_equal(given.held[name], before[name])
