"""Whole networks of other people against onnxruntime, through artifacts: the classics of the onnx wheel, with weights
that live, here and on an emulated Raspberry Pi 4.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgec.runtime import load
from edgec.tools import api
from edgec.tools.device_run import run_on_device
from edgec.tools.testing.data import page_images
from edgec.tools.testing.light_models import LIGHT_MODELS, input_name, save_light_model
from edgec.tools.verify import run_onnxruntime

TOLERANCE = 1e-4  # of the largest output
QUICK = ("shufflenet", "squeezenet")
EMULATED = ("shufflenet", "resnet50", "inception_v2")


def differs(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def living(name: str, folder: Path) -> tuple[Path, list[tuple[dict[str, np.ndarray], np.ndarray]]]:
    """The model in a file, and pairs of inputs and of what onnxruntime makes of them: 1000 classes that depend on the
    image.
    """
    path = save_light_model(name, folder / f"{name}.onnx", page_images(4, seed=0)[0])
    x = input_name(onnx.load(path, load_external_data=False))
    feeds = [{x: image[None]} for image in page_images(2, seed=9)[0]]
    expected = [next(iter(run_onnxruntime(path, feed).values())) for feed in feeds]
    assert all(len(np.unique(output)) >= 100 for output in expected)
    assert differs(expected[0], expected[1]) > 10 * TOLERANCE
    return path, list(zip(feeds, expected, strict=True))


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.long) for n in LIGHT_MODELS])
def test_light_model(name: str, tmp_path: Path) -> None:
    path, pairs = living(name, tmp_path)
    api.compile(path, target="x86", out=tmp_path / "model.edge")
    with load(tmp_path / "model.edge") as model:
        for feed, expected in pairs:
            (actual,) = model.run(feed).values()
            assert differs(actual, expected) <= TOLERANCE


@pytest.mark.long
@pytest.mark.parametrize("name", EMULATED)
def test_light_model_on_an_emulated_pi(name: str, tmp_path: Path) -> None:
    if shutil.which("qemu-aarch64-static") is None:
        pytest.skip("qemu-aarch64-static is missing: apt-get install qemu-user-static")
    path, pairs = living(name, tmp_path)
    api.compile(path, target="rpi4", out=tmp_path / "model.edge")
    feed, expected = pairs[0]
    (actual,) = run_on_device("qemu", tmp_path / "model.edge", "infer", feed, target="rpi4").outputs.values()
    assert differs(actual, expected) <= TOLERANCE
