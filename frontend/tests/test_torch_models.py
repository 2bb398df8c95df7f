"""Whole architectures from torch: interpreted, and compiled for here and for a Raspberry Pi, against torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import edgec
from edgec.tools.device_run import run_on_device
from edgec.tools.testing.torch_import import expected, imported, interpreted
from edgec.tools.testing.torch_models import FULL_MODELS, TORCH_MODELS, torch_model

torch.set_num_threads(1)


def close(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    """Within 1e-4 of the largest value of each output, which must say something."""
    assert ours.keys() == theirs.keys()
    for name, wanted in theirs.items():
        assert len(np.unique(wanted)) >= 100, "a dead model"
        np.testing.assert_allclose(ours[name], wanted, rtol=0, atol=1e-4 * np.abs(wanted).max(), err_msg=name)


def assert_state_is_back(module: nn.Module, values: dict[str, np.ndarray]) -> None:
    """`load_state_dict` takes all of it, and has the same bits afterwards."""
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.fill_(1)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in values.items()})  # strict
    for name, tensor in module.state_dict().items():
        assert values[name].dtype == before[name].numpy().dtype
        assert tensor.numpy().tobytes() == before[name].numpy().tobytes(), name


class WithLoss(nn.Module):
    """A model with a loss of its own, whatever it returns; its state has the names `model.*`."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        outputs = pytree.tree_leaves(self.model(x) if y is None else self.model(x, y))
        return {"loss": sum(output.sigmoid().square().mean() for output in outputs)}


def compiled(module: nn.Module, inputs: tuple[Tensor, ...], folder: Path, **options: object) -> Path:
    edgec.compile(module, example_inputs=inputs, out=folder / "m.edge", **options)
    return folder / "m.edge"


def feeds(artifact: Path, inputs: tuple[Tensor, ...]) -> dict[str, np.ndarray]:
    with edgec.load(artifact, threads=1) as model:
        return {item.name: x.numpy() for item, x in zip(model.inputs, inputs, strict=True)}


# Compiling takes seconds for each of these, and they share their kinds of layers with others.
_LONG = ("resnet18", "mobilenet_v2", "efficientnet", "minilm", "lstm", "detector")
COMPILED = [pytest.param(name, marks=pytest.mark.long) if name in _LONG else name for name in TORCH_MODELS]


@pytest.mark.parametrize("name", TORCH_MODELS)
def test_a_model_is_torchs(name: str) -> None:
    module, inputs = torch_model(name)
    wanted = expected(module, inputs)
    other = expected(module, (torch.roll(inputs[0], 1, -1), *inputs[1:]))
    assert any(not np.allclose(value, wanted[key]) for key, value in other.items()), "a dead model"
    close(interpreted(imported(module, inputs), inputs), wanted)


@pytest.mark.parametrize("name", COMPILED)
def test_its_artifact_is_torchs(name: str, tmp_path: Path) -> None:
    module, inputs = torch_model(name)
    artifact = compiled(module, inputs, tmp_path)
    with edgec.load(artifact, threads=1) as model:
        close(model.run(feeds(artifact, inputs)), expected(module, inputs))
        assert_state_is_back(module, model.parameters())


TRAINED = [name if name == "detector" else pytest.param(name, marks=pytest.mark.long) for name in TORCH_MODELS]


@pytest.mark.parametrize("name", TRAINED)
def test_the_state_comes_back_from_a_training_artifact(name: str, tmp_path: Path) -> None:
    """To the bit before a step; afterwards too, but for what was trained."""
    module, inputs = torch_model(name)
    train = edgec.Train(loss="output:loss", batch=len(inputs[0]), batch_norm="train")
    edgec.compile(WithLoss(module), example_inputs=inputs, train=train, out=tmp_path / "m.edge")
    norms = sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())
    with edgec.load(tmp_path / "m.edge", threads=1) as model:
        assert_state_is_back(WithLoss(module), model.parameters())
        before = {key: value.clone() for key, value in WithLoss(module).state_dict().items()}
        model.step({info.name: x.numpy() for info, x in zip(model.inputs, inputs, strict=True)}, lr=1e-3)
        values, trained = model.parameters(), set(model.trained)
    changed = {key for key, value in values.items() if not np.array_equal(value, before[key].numpy())}
    counters = {key for key in before if key.endswith("num_batches_tracked")}
    assert len(counters) == norms and counters <= changed and all(values[key] == before[key] + 1 for key in counters)
    memory = {key: tensor.data_ptr() for key, tensor in WithLoss(module).state_dict().items()}
    tied = {key for key in memory if memory[key] in {memory[name] for name in trained}}
    assert len(changed) > 3 and changed - counters <= tied
    WithLoss(module).load_state_dict({key: torch.from_numpy(value) for key, value in values.items()})


@pytest.mark.long
@pytest.mark.parametrize("name", FULL_MODELS)
def test_the_artifact_of_a_model_of_full_size_is_torchs(name: str, tmp_path: Path) -> None:
    module, inputs = torch_model(name, FULL_MODELS)
    artifact = compiled(module, inputs, tmp_path)
    with edgec.load(artifact, threads=1) as model:
        close(model.run(feeds(artifact, inputs)), expected(module, inputs))


@pytest.mark.long
@pytest.mark.parametrize("name", ["vit", "llama", "lstm", "detector"])
def test_its_artifact_for_a_raspberry_pi_is_torchs(name: str, tmp_path: Path) -> None:
    """Under qemu, which refuses what a Cortex-A72 would refuse."""
    module, inputs = torch_model(name)
    artifact = compiled(module, inputs, tmp_path, target=["x86", "rpi4"])
    done = run_on_device("qemu", artifact, "infer", feeds(artifact, inputs))
    close(done.outputs, expected(module, inputs))
