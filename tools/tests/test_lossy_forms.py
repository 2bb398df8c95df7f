"""Lossy forms of saved activations on compiled kernels: losses stay, bytes fall, real data is learnt as well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgec
from edgec.runtime import load
from edgec.runtime.evaluate import evaluate
from edgec.runtime.fit import fit
from edgec.runtime.schedule import Cosine
from edgec.tools.testing import data, models

SHAPES = {"x": (1, 1, 28, 28)}


def artifact(path: Path, form: str, **train: object) -> int:
    """Compile the small CNN; bytes that are kept for the backward part."""
    asked = edgec.Train(momentum=0.9, saved_activations=form, **train)
    report = edgec.compile(models.small_cnn_onnx(), shapes=SHAPES, out=path, train=asked)
    return report.programs["train"].saved_activation_bytes


def test_steps_stay_close_and_bytes_fall(tmp_path: Path) -> None:
    """The first loss is that of the same forward part; later ones differ as gradients do."""
    images, labels = data.fashion_mnist("train")
    kept, losses = {}, {}
    for form in ("exact", "f16", "int8"):
        kept[form] = artifact(tmp_path / "m.edge", form, batch=16)
        with load(tmp_path / "m.edge", threads=1) as model:
            batches = [slice(16 * i, 16 * i + 16) for i in range(6)]
            losses[form] = [model.step({"x": images[b], "labels": labels[b]}, lr=0.02) for b in batches]
    assert kept["f16"] < 0.7 * kept["exact"] and kept["int8"] < 0.55 * kept["exact"]
    for form, bound in (("f16", 1e-4), ("int8", 1e-3)):
        assert losses[form][0] == losses["exact"][0] and losses[form] != losses["exact"]
        np.testing.assert_allclose(losses[form], losses["exact"], rtol=bound)


@pytest.mark.long
def test_they_learn_as_well(tmp_path: Path) -> None:
    """An epoch of Fashion-MNIST: within half a point of the exact form, and of each other."""
    train, test = (dict(zip(("x", "labels"), data.fashion_mnist(split), strict=True)) for split in ("train", "test"))
    accuracy = {}
    for form in ("exact", "f16", "int8"):
        artifact(tmp_path / "m.edge", form, batch=64)
        with load(tmp_path / "m.edge", threads=1) as model:
            fit(model, train, epochs=1, schedule=Cosine(0.05))
            accuracy[form] = evaluate(model, test).accuracy
    assert accuracy["exact"] > 0.85
    for form in ("f16", "int8"):
        assert abs(accuracy[form] - accuracy["exact"]) < 0.005, accuracy
