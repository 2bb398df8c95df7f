"""Trained models as packages ship them, against onnxruntime: detectors and readers of text, and models of sound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgec.runtime import load
from edgec.tools import api
from edgec.tools.testing.data import page_images
from edgec.tools.testing.models import package_folder
from edgec.tools.verify import run_onnxruntime

Feeds = dict[str, np.ndarray]

# Of the largest output: rounding that deep networks enlarge, in both.
TOLERANCE = 1e-4
pytestmark = pytest.mark.long


@dataclass(frozen=True)
class Shipped:
    """A model at `path` in the folder of a package, and inputs that look like what it was made for, by seed."""

    package: str
    version: str
    path: str
    draw: Callable[[int], Feeds]

    def __str__(self) -> str:
        return f"{self.package}-{Path(self.path).stem}"


def _voice(samples: int, rate: int, seed: int) -> np.ndarray:
    """f32[samples]: a voiced tone of many harmonics that rises and falls in pitch and loudness, and a little noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / rate
    pitch = 120 + 40 * np.sin(2 * np.pi * (1.5 + seed) * t)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    tone = sum(np.sin(k * phase) / k for k in range(1, 12)) * (0.3 + 0.3 * np.sin(2 * np.pi * 3 * t))
    return (0.2 * tone + 0.005 * rng.standard_normal(samples)).astype(np.float32)


def _state(seed: int) -> np.ndarray:
    return (0.3 * np.random.default_rng(seed).standard_normal((1, 1, 128))).astype(np.float32)


MODELS = (
    # Text: DBNet on a page, a transformer and CTC on a line.
    Shipped("rapidocr", "3.10.0", "models/PP-OCRv6_det_small.onnx", lambda seed: {"x": page_images(1, seed)[0]}),
    Shipped(
        "rapidocr",
        "3.10.0",
        "models/PP-OCRv6_rec_small.onnx",
        lambda seed: {"x": np.ascontiguousarray(page_images(1, seed)[0][:, :, 80:128])},
    ),
    # A voice or none, in eight frames of 32 ms: a Fourier transform, convolutions and an LSTM (MIT).
    Shipped(
        "faster_whisper",
        "1.2.1",
        "assets/silero_vad_v6.onnx",
        lambda seed: {"input": _voice(8 * 576, 16000, seed).reshape(8, 576), "h": _state(seed), "c": _state(seed + 9)},
    ),
    # Notes (Apache-2.0): a constant-Q transform, and long names.
    Shipped(
        "basic_pitch",
        "0.4.0",
        "saved_models/icassp_2022/nmp.onnx",
        lambda seed: {"serving_default_input_2:0": _voice(43844, 22050, seed)[None, :, None]},
    ),
    # Pitch (MIT): a part of it in double precision.
    Shipped(
        "swift_f0",
        "0.3.0",
        "model.onnx",
        lambda seed: {"audio": _voice(8000, 16000, seed)[None], "fmin": np.float32(50), "fmax": np.float32(2000)},
    ),
)


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_shipped_model(model: Shipped, tmp_path: Path) -> None:
    path = package_folder(model.package, model.version) / model.path
    draws = [{name: np.asarray(array) for name, array in model.draw(seed).items()} for seed in (1, 2)]
    shapes = {name: array.shape for name, array in draws[0].items()}
    api.compile(path, target="x86", shapes=shapes, out=tmp_path / "model.edge")
    expected = [run_onnxruntime(path, feeds) for feeds in draws]
    assert any(_differs(expected[0][name], expected[1][name]) > 10 * TOLERANCE for name in expected[0])
    with load(tmp_path / "model.edge") as compiled:
        for feeds, wanted in zip(draws, expected, strict=True):
            outputs = compiled.run(feeds)
            errors = {name: _differs(outputs[name], array) for name, array in wanted.items()}
            assert max(errors.values()) <= TOLERANCE, errors


def _differs(actual: np.ndarray, expected: np.ndarray) -> float:
    assert actual.shape == expected.shape
    return float(np.abs(actual.astype(np.float64) - expected).max() / np.abs(expected).max())
