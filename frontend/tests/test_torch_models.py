"""Whole architectures from torch: the interpreter, and the compiled artifact on this machine, against torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import edgec
from edgec.tools.testing.torch_import import expected, imported, interpreted
from edgec.tools.testing.torch_models import TORCH_MODELS, torch_model

torch.set_num_threads(1)


def close(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    """Within 1e-4 of the largest value of each output, which must say something."""
    assert ours.keys() == theirs.keys()
    for name, wanted in theirs.items():
        assert len(np.unique(wanted)) >= 100, "a dead model"
        np.testing.assert_allclose(ours[name], wanted, rtol=0, atol=1e-4 * np.abs(wanted).max(), err_msg=name)


# Compiling takes seconds for each of these, and they share their kinds of layers with others.
_LONG = ("resnet18", "mobilenet_v2", "efficientnet")
COMPILED = [pytest.param(name, marks=pytest.mark.long) if name in _LONG else name for name in TORCH_MODELS]


@pytest.mark.parametrize("name", TORCH_MODELS)
def test_a_model_is_torchs(name: str) -> None:
    module, x = torch_model(name)
    wanted = expected(module, (x,))
    other = expected(module, (torch.roll(x, 1, -1),))
    assert any(not np.allclose(value, wanted[key]) for key, value in other.items()), "a dead model"
    close(interpreted(imported(module, (x,)), (x,)), wanted)


@pytest.mark.parametrize("name", COMPILED)
def test_its_artifact_is_torchs(name: str, tmp_path: Path) -> None:
    module, x = torch_model(name)
    edgec.compile(module, example_inputs=(x,), out=tmp_path / "m.edge")
    with edgec.load(tmp_path / "m.edge", threads=1) as model:
        (feed,) = (item.name for item in model.inputs)
        close(model.run({feed: x.numpy()}), expected(module, (x,)))
