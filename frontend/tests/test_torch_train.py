"""Training of torch modules: one step against torch's own gradients, and the trained weights back in the module."""

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
from edgec.frontend.torch import read_torch
from edgec.graph.interp import run
from edgec.graph.ops.dropout import Dropout
from edgec.tools.cli import main
from edgec.tools.testing.torch_models import awake, conv_norm

torch.set_num_threads(1)
BATCH, CLASSES, LR = 4, 5, 0.1


class SmallNet(nn.Module):
    """Convolutions with batch norm, a depthwise one, a skip, a tied and a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(3, 8, 3, 2)
        self.wise = conv_norm(8, 8, 3, groups=8, act=nn.Hardswish)
        self.point = nn.Conv2d(8, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.frozen = nn.Conv2d(8, 12, 3, padding=1).requires_grad_(False)
        self.first, self.second = nn.Linear(12, 12), nn.Linear(12, 12)
        self.second.weight = self.first.weight
        self.head = nn.Linear(12, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        x = F.relu(self.norm(self.point(self.wise(x)))) + x
        x = F.max_pool2d(F.silu(self.frozen(x)), 2).mean((2, 3))
        return self.head(self.second(F.leaky_relu(self.first(x))))


@pytest.fixture
def module() -> nn.Module:
    return awake(SmallNet(), torch.zeros(1, 3, 16, 16))


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def test_a_step_is_torchs_and_the_weights_go_back(module: nn.Module, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((BATCH, 3, 16, 16)).astype(np.float32), rng.integers(0, CLASSES, BATCH)
    train = edgec.Train(batch=BATCH, momentum=0.9)
    edgec.compile(module, example_inputs=(torch.zeros(1, 3, 16, 16),), train=train, out=tmp_path / "m.edge")

    twin = awake(SmallNet(), torch.zeros(1, 3, 16, 16))
    optimizer = torch.optim.SGD([p for p in twin.parameters() if p.requires_grad], LR, momentum=0.9)
    before = {name: tensor.clone() for name, tensor in twin.state_dict().items()}
    with edgec.load(tmp_path / "m.edge", threads=1) as model:
        trained = {name for name, p in twin.named_parameters() if p.requires_grad}
        assert set(model.trained) == trained, "what torch would train, and no statistic, buffer or frozen weight"
        for _ in range(2):
            optimizer.zero_grad()
            loss = F.cross_entropy(twin(torch.from_numpy(x)), torch.from_numpy(labels))
            loss.backward()
            optimizer.step()
            assert model.step({"image": x, "labels": labels}, lr=LR) == pytest.approx(loss.item(), rel=1e-4)
        values = model.parameters()
        for name in trained:
            moved = (twin.state_dict()[name] - before[name]).numpy()
            assert np.abs(moved).max() > 1e-5, f"{name} has no gradient: the test shows nothing for it"
            ours = values[name] - before[name].numpy()
            np.testing.assert_allclose(ours, moved, rtol=0, atol=2e-4 * np.abs(moved).max(), err_msg=name)
        result = model.run({"image": x[:1]})["output"]

    module.load_state_dict(tensors(values))  # strict: names, shapes
    assert module.second.weight is module.first.weight
    with torch.no_grad():
        np.testing.assert_allclose(module(torch.from_numpy(x[:1])).numpy(), result, rtol=0, atol=1e-4)


def test_parameters_go_back_where_the_rest_is_folded(module: nn.Module, tmp_path: Path) -> None:
    """With the head alone in training the norms are folded: what was folded is torch's, to the bit."""
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    inputs, train = (torch.zeros(1, 3, 16, 16),), edgec.Train(batch=2, update="head")
    edgec.compile(module, example_inputs=inputs, train=train, out=tmp_path / "m.edge")
    with edgec.load(tmp_path / "m.edge", threads=1) as model:
        assert set(model.trained) == {"head.weight", "head.bias"}
        rng = np.random.default_rng(0)
        x, labels = rng.standard_normal((2, 3, 16, 16)).astype(np.float32), rng.integers(0, CLASSES, 2)
        model.step({"image": x, "labels": labels}, lr=LR)
        module.load_state_dict(tensors(model.parameters()))
    for name, tensor in module.state_dict().items():
        same = tensor.numpy().tobytes() == before[name].numpy().tobytes()
        assert same == (name not in model.trained), name


def test_weights_of_which_channels_are_trained_go_back_whole(module: nn.Module, tmp_path: Path) -> None:
    """Under both names of a tied one, too."""
    inputs, rules = (torch.zeros(1, 3, 16, 16),), (edgec.WeightRule("*.weight", 0.5),)
    train = edgec.Train(batch=2, update=edgec.Scheme("none", weights=rules))
    edgec.compile(module, example_inputs=inputs, train=train, out=tmp_path / "m.edge")
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with edgec.load(tmp_path / "m.edge", threads=1) as model:
        module.load_state_dict(tensors(model.parameters()))
        assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
        assert model.parts, "nothing is held in pieces: the test shows nothing"
        rng = np.random.default_rng(0)
        x, labels = rng.standard_normal((2, 3, 16, 16)).astype(np.float32), rng.integers(0, CLASSES, 2)
        model.step({"image": x, "labels": labels}, lr=LR)
        module.load_state_dict(tensors(model.parameters()))
        assert torch.equal(module.second.weight, torch.from_numpy(model.parameters()["second.weight"]))
        assert not torch.equal(module.head.weight, before["head.weight"])
        result = model.run({"image": x[:1]})["output"]
    with torch.no_grad():
        np.testing.assert_allclose(module(torch.from_numpy(x[:1])).numpy(), result, rtol=0, atol=1e-4)


def test_a_pt2_file_is_checked_compiled_and_verified_by_the_command_line(module: nn.Module, tmp_path: Path) -> None:
    torch.export.save(torch.export.export(module, (torch.zeros(1, 3, 16, 16),)), tmp_path / "m.pt2")
    artifact = str(tmp_path / "m.edge")
    for command in (["check"], ["compile", "-o", artifact], ["verify", artifact]):
        with pytest.raises(SystemExit) as caught:
            main([command[0], str(tmp_path / "m.pt2"), *command[1:]])
        assert not caught.value.code
    with edgec.load(tmp_path / "m.edge", threads=1) as model:
        assert [item.name for item in model.inputs] == ["image"] and [o.name for o in model.outputs] == ["output"]


def test_norms_in_training_mode_are_torchs(tmp_path: Path) -> None:
    """Three steps on data far from zero: losses, weights and running statistics, which `run` then sees."""
    twin = awake(SmallNet(), torch.zeros(1, 3, 16, 16))
    for norm in (m for m in twin.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = 0.1
    inputs, train = (torch.zeros(1, 3, 16, 16),), edgec.Train(batch=BATCH, batch_norm="train")
    edgec.compile(twin, example_inputs=inputs, train=train, out=tmp_path / "m.edge")
    optimizer = torch.optim.SGD([p for p in twin.parameters() if p.requires_grad], LR)
    before = {name: tensor.clone() for name, tensor in twin.state_dict().items()}
    rng = np.random.default_rng(0)
    with edgec.load(tmp_path / "m.edge", threads=1) as model:
        for _ in range(3):
            x = (rng.standard_normal((BATCH, 3, 16, 16)) + 5).astype(np.float32)
            labels = rng.integers(0, CLASSES, BATCH)
            optimizer.zero_grad()
            loss = F.cross_entropy(twin.train()(torch.from_numpy(x)), torch.from_numpy(labels))
            loss.backward()
            optimizer.step()
            assert model.step({"image": x, "labels": labels}, lr=LR) == pytest.approx(loss.item(), rel=1e-4)
        values = model.parameters()
        for name, tensor in twin.state_dict().items():
            if not tensor.is_floating_point():
                assert values[name] == tensor == before[name] + 3  # batches that a norm has seen
                continue
            change = (tensor - before[name]).numpy()
            tolerance = 1e-3 * np.abs(change).max() + 1e-6  # a bias before a norm has no gradient
            np.testing.assert_allclose(
                values[name] - before[name].numpy(), change, rtol=0, atol=tolerance, err_msg=name
            )
        with torch.no_grad():
            expected = twin.eval()(torch.from_numpy(x[:1])).numpy()
        np.testing.assert_allclose(model.run({"image": x[:1]})["output"], expected, rtol=0, atol=1e-3)


class Dropping(nn.Module):
    """A dropout that is a module, and one that is a function."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2)
        self.hidden, self.drop, self.head = nn.Linear(16, 64), nn.Dropout(0.5), nn.Linear(64, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = F.dropout(F.relu(self.stem(image)), 0.25, self.training).mean((2, 3))
        return self.head(self.drop(F.relu(self.hidden(x))))


def test_dropout_draws_the_same_for_any_threads_and_goes_on_where_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, inputs = Dropping(), (torch.zeros(1, 3, 16, 16),)
    train = edgec.Train(batch=BATCH, momentum=0.9, seed=11)
    edgec.compile(module, example_inputs=inputs, train=train, out=tmp_path / "m.edge")
    reference = read_torch(module, inputs)
    transform_module(reference, Options(train=train))
    assert [node.op.rate for node in reference.programs["train"].nodes if isinstance(node.op, Dropout)][:2] == [
        0.25,
        0.5,
    ]
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((BATCH, 3, 16, 16)).astype(np.float32), rng.integers(0, CLASSES, BATCH)

    def steps(threads: int, count: int, resume: Path | None = None, save: Path | None = None) -> list[float]:
        with edgec.load(tmp_path / "m.edge", threads=threads) as model:
            if resume is not None:
                model.load_checkpoint(resume)
            losses = [model.step({"image": x, "labels": labels}, lr=LR) for _ in range(count)]
            if save is not None:
                model.save_checkpoint(save)
            return losses

    together = steps(1, 4)
    assert together == steps(2, 4)
    assert steps(1, 2, save=tmp_path / "c") + steps(2, 2, resume=tmp_path / "c") == together
    held: dict[str, np.ndarray] = {}
    for loss in together:
        results = run(reference.programs["train"], {"image": x, "labels": labels, "lr": np.float32(LR), **held})
        held = results.updates
        assert loss == pytest.approx(float(results.outputs["loss"]), rel=1e-4), "other decisions than the reference"
    with edgec.load(tmp_path / "m.edge", threads=1) as model, torch.no_grad():
        expected = module.eval()(torch.from_numpy(x[:1])).numpy()
        np.testing.assert_allclose(model.run({"image": x[:1]})["output"], expected, rtol=0, atol=1e-5)
