"""kill -9 amid training: Adam's averages, the best state and the place in the data are whole, and the run goes on."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import edgec
from edgec.runtime import Checkpoint
from edgec.runtime.fit import fit
from edgec.runtime.schedule import Constant
from edgec.tools.testing.models import normed_classifier_onnx

SAMPLES, BATCH, ENOUGH = 12, 4, 100_000


def run(artifact: Path, folder: Path | None, steps: int) -> tuple[int, dict[str, np.ndarray]]:
    """From what is in `folder` to so many steps: where it began, and all that training changes at the end."""
    rng = np.random.default_rng(0)
    data = {
        "x": rng.standard_normal((SAMPLES, 3, 5, 5)).astype(np.float32),
        "labels": rng.integers(0, 4, SAMPLES),
    }
    saving = {}
    if folder is not None:
        saving = {"checkpoint": folder / "last", "best_checkpoint": folder / "best", "checkpoint_every": 1}
    with edgec.load(artifact, threads=1) as model:
        options = {"epochs": ENOUGH, "max_steps": steps, "schedule": Constant(1e-3), "seed": 5}
        done = fit(model, data, eval_data=data, resume=folder is not None, **options, **saving)
        changed = {name: array for name, array in model.parameters().items() if name in model.trained}
        return done.first_step, changed | model.states()


def started(artifact: Path, folder: Path, steps: int) -> int:
    """A process that trains from the last checkpoint to so many steps."""
    child = os.fork()
    if child == 0:
        try:
            run(artifact, folder, steps)
            os._exit(0)
        finally:
            os._exit(1)
    return child


def seconds_of(artifact: Path, folder: Path, steps: int) -> float:
    """How long such a process takes here: disks differ, how large a forked process is, and what else a machine does."""
    began = time.monotonic()
    assert os.waitpid(started(artifact, folder, steps), 0)[1] == 0
    return time.monotonic() - began


def killed_run(artifact: Path, folder: Path, seconds: float) -> None:
    """A process that trains from the last checkpoint, for so long. It ends by the signal and not by itself."""
    child = started(artifact, folder, ENOUGH)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status), "training failed: a checkpoint was not whole"


def test_a_checkpoint_moves_to_another_memory_plan(tmp_path: Path) -> None:
    """What a budget computes twice is computed to the same bits: the run goes on as it would have."""
    torch.manual_seed(0)
    layers = [layer for i in range(6) for layer in (nn.Conv2d(8 if i else 3, 8, 3, padding=1), nn.Hardswish())]
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    example, rule = (torch.zeros(BATCH, 3, 24, 24),), {"optimizer": "adam", "batch": BATCH}
    roomy = edgec.compile(module, example_inputs=example, train=edgec.Train(**rule), out=tmp_path / "a.edge")
    arena, states = roomy.programs["train"].arena_bytes, roomy.programs["train"].state_bytes
    # Adam keeps two states for every trained parameter.
    tight = edgec.Train(**rule, memory_budget=int(0.8 * arena) + states * 3 // 2)
    report = edgec.compile(module, example_inputs=example, train=tight, out=tmp_path / "b.edge")
    assert report.programs["train"].arena_bytes <= 0.8 * arena
    rng = np.random.default_rng(0)
    feeds = {"input": rng.standard_normal((BATCH, 3, 24, 24)).astype(np.float32), "labels": np.arange(BATCH) % 4}
    with edgec.load(tmp_path / "a.edge", threads=1) as model, edgec.load(tmp_path / "b.edge", threads=1) as moved:
        for _ in range(3):
            model.step(feeds, lr=0.01)
        model.save_checkpoint(tmp_path / "c", step=3)
        assert moved.load_checkpoint(tmp_path / "c").step == 3
        assert [model.step(feeds, lr=0.01) for _ in range(3)] == [moved.step(feeds, lr=0.01) for _ in range(3)]
        for name, array in model.parameters().items():
            np.testing.assert_array_equal(moved.parameters()[name], array)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kills", [15, pytest.param(1000, marks=pytest.mark.long)])
def test_a_run_that_is_killed_goes_on_to_the_bit(kills: int, tmp_path: Path) -> None:
    onnx.save(normed_classifier_onnx(), tmp_path / "m.onnx")
    train = edgec.Train(optimizer="adam", batch=BATCH, batch_norm="train", accumulate=2)
    edgec.compile(tmp_path / "m.onnx", batch=1, train=train, out=tmp_path / "m.edge")
    folder = tmp_path / "saved"
    folder.mkdir()
    pace = seconds_of(tmp_path / "m.edge", folder, 5)
    moments, reached, amid = random.Random(kills), 5, 0
    for _ in range(kills):
        killed_run(tmp_path / "m.edge", folder, moments.uniform(0.2, 2) * pace)
        step = Checkpoint.of(folder / "last").step
        assert step >= reached and Checkpoint.of(folder / "best").step <= step + 1
        amid += bool({path.name for path in folder.iterdir()} - {"last", "best"})
        reached = step
    assert reached >= kills and amid > kills // 50, "nothing was interrupted"
    first, resumed = run(tmp_path / "m.edge", folder, reached + 5)
    whole = run(tmp_path / "m.edge", None, reached + 5)[1]
    assert first == reached and resumed.keys() == whole.keys()
    for name, array in whole.items():
        assert array.tobytes() == resumed[name].tobytes(), name
