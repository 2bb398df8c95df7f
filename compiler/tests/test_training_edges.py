"""Training where something is dead, saturated, shared, cut off or overflows: what torch does, and what is reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import edgec
from edgec.compiler.passbase import Options
from edgec.compiler.pipeline import transform_module
from edgec.compiler.train import Train
from edgec.frontend.torch import read_torch
from edgec.graph.interp import run
from edgec.runtime.errors import RuntimeFailure
from edgec.tools.testing.widen import widened

torch.set_num_threads(1)
BATCH, WIDTH, CLASSES = 4, 6, 3


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, WIDTH, generator=generator)
    x[1] = 0
    return x, torch.tensor([0, 1, 2, 0])


def gradients(module: nn.Module) -> dict[str, np.ndarray]:
    """Of our program and of torch's, which are asserted to be the same; parameters that torch gives none have none."""
    x, labels = inputs()
    program = widened(read_torch(module, (x,)))
    transform_module(program, Options(train=Train()))
    graph = program.programs["train"]
    results = run(graph, {"x": x.double().numpy(), "labels": labels.numpy(), "lr": np.float32(1)})
    ours = {leaf.name: leaf.data - results.updates[leaf.name] for leaf in graph.updates}
    module = module.double()
    loss = F.cross_entropy(module(x.double()), labels)
    loss.backward()
    assert abs(loss.item() - float(results.outputs["loss"])) < 1e-9
    theirs = {name: p.grad.numpy() for name, p in module.named_parameters() if p.grad is not None}
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        np.testing.assert_allclose(ours[name], gradient, rtol=1e-9, atol=1e-12, err_msg=name)
    return ours


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)


class Rectified(Layers):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.a(x)) + self.b(x))


def test_dead_relus_pass_nothing() -> None:
    module = Rectified()
    module.a.bias.data -= 1000
    found = gradients(module)
    assert not found["a.weight"].any() and not found["a.bias"].any() and found["b.weight"].any()


def test_a_saturated_softmax_has_a_finite_loss_and_its_gradient() -> None:
    module = Rectified()
    module.head.weight.data *= 1e4
    found = gradients(module)
    assert all(np.isfinite(gradient).all() for gradient in found.values())
    assert np.abs(found["head.bias"]).max() > 0.1, "some row must be sure of what is wrong"


class Tied(Layers):
    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(F.linear(x, self.a.weight)) + F.linear(torch.sin(x), self.a.weight.T)
        return self.head(F.linear(y * self.a.bias, self.b.weight, self.a.bias))


def test_a_parameter_that_is_used_in_several_places_has_the_sum() -> None:
    found = gradients(Tied())
    assert set(found) == {"a.weight", "a.bias", "b.weight", "head.weight", "head.bias"}


class Cut(Layers):
    """b decides and rounds, and has no gradient; the rest of what it decides on goes on."""

    def forward(self, x: Tensor) -> Tensor:
        y, decision = self.a(x), self.b(x).detach() * 0 + torch.round(x)
        return self.head(torch.where(decision > 0, torch.tanh(y), y * 0.5))


def test_a_branch_without_gradient_is_left_out() -> None:
    found = gradients(Cut())
    assert set(found) == {"a.weight", "a.bias", "head.weight", "head.bias"}


class Rounded(Layers):
    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.head(y + torch.floor(y) - torch.sign(self.b(x)))


def test_rounding_passes_nothing_where_torch_says_zero() -> None:
    module = Rounded()
    x, labels = inputs()
    program = widened(read_torch(module, (x,)))
    transform_module(program, Options(train=Train()))
    assert "b.weight" not in {leaf.name for leaf in program.programs["train"].updates}
    loss = F.cross_entropy(module(x), labels)
    loss.backward()
    assert not module.b.weight.grad.any() and module.a.weight.grad.any()


class Normed(Layers):
    def forward(self, x: Tensor) -> Tensor:
        rows = F.linear(x, self.a.weight)  # one of them is 0
        return self.head(rows + rows.norm(dim=1, keepdim=True) * self.b.bias + F.normalize(self.b(x)))


def test_the_norm_of_a_row_of_zeros_has_the_gradient_zero() -> None:
    module = Normed()
    module.b.bias.data[:] = 0.25
    assert all(np.isfinite(gradient).all() for gradient in gradients(module).values())


class Overflowing(nn.Module):
    """All scores are 0, and their slope is 1e38: the gradient of v is beyond f32, the loss log(3)."""

    def __init__(self) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.zeros(CLASSES, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.v) * 1e38


@pytest.mark.parametrize("guard", ["loss", "grads"])
def test_a_gradient_that_overflows_is_reported(guard: str, tmp_path: Path) -> None:
    """Under guard=loss after the step that took it, which named the parameter; guard=grads refuses that step."""
    x, labels = inputs()
    feeds = {"x": 100 * x.numpy(), "labels": labels.numpy()}
    edgec.compile(Overflowing(), example_inputs=(x,), train=edgec.Train(guard=guard), out=tmp_path / "m.edge")
    with edgec.load(tmp_path / "m.edge", threads=1) as model:
        if guard == "grads":
            with pytest.raises(RuntimeFailure) as caught:
                model.step(feeds, lr=0.1)
            assert caught.value.code == "E0613" and not model.parameters()["v"].any()
            return
        assert model.step(feeds, lr=0.1) == pytest.approx(np.log(CLASSES), rel=1e-6)
        assert model.not_finite() == "v"
        with pytest.raises(RuntimeFailure, match="gradient of an earlier step overflowed") as caught:
            model.step(feeds, lr=0.1)
        assert caught.value.code == "E0605"
