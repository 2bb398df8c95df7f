"""Whole architectures from torch: interpreted, and compiled for here and for a Raspberry Pi, against torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

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
        state, values = module.state_dict(), model.parameters()
    # All parameters are there by their names, but for what nothing reads or what was folded.
    tensors = {name: torch.from_numpy(array) for name, array in values.items()}
    outcome = module.load_state_dict(tensors, strict=False)
    assert not outcome.unexpected_keys
    module.load_state_dict(state | tensors)
    assert sum(array.size for array in values.values()) > 1000


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
