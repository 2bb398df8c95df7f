"""A memory budget on compiled kernels: what is computed twice comes out the same, to the bit."""

from pathlib import Path

import numpy as np
import torch

import edgec
from edgec.tools.testing.torch_models import MobileNet, awake

ROWS = [(3, 1, 1, 8, 1), (3, 2, 4, 16, 2)]


def test_gradients_have_the_same_bits_under_a_budget(tmp_path: Path) -> None:
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    module = awake(MobileNet(ROWS, torch.nn.Hardswish, torch.nn.Hardsigmoid, 32, 5), x)
    reports, models = [], []
    for budget in (None, "430KB"):
        path = tmp_path / f"{budget}.edge"
        train = edgec.Train(batch=4, memory_budget=budget)
        reports.append(edgec.compile(module, example_inputs=(x,), out=path, train=train).programs["train"])
        models.append(edgec.load(path, threads=2))
    assert reports[0].recomputed_macs == 0 < reports[1].recomputed_macs
    assert reports[1].arena_bytes < 0.75 * reports[0].arena_bytes
    rng = np.random.default_rng(0)
    for _ in range(3):
        feeds = {"x": rng.standard_normal((4, 3, 32, 32)).astype(np.float32), "labels": rng.integers(0, 5, 4)}
        free, tight = (model.step(feeds, lr=0.05) for model in models)
        assert free == tight
    left, right = (model.parameters() for model in models)
    for name, array in left.items():
        np.testing.assert_array_equal(array, right[name], err_msg=name)
