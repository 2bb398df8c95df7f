"""Gradients of whole architectures against torch's, in float64: norms frozen, and by the statistics of the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgec.compiler.passbase import Options
from edgec.compiler.pipeline import transform_module
from edgec.compiler.train import Train
from edgec.frontend.torch import read_torch
from edgec.graph.interp import run
from edgec.tools.testing.torch_models import (
    Llama,
    Lstm,
    ResNet18,
    UNet,
    VisionTransformer,
    VitBlock,
    awake,
    mobilenet_v2,
)
from edgec.tools.testing.widen import widened

torch.set_num_threads(1)
BATCH, CLASSES = 3, 5


class Pooled(nn.Module):
    """A model of maps or of tokens as a classifier: the mean over all axes but images and classes."""

    def __init__(self, model: nn.Module, axes: tuple[int, ...]):
        super().__init__()
        self.model, self.axes = model, axes

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).mean(self.axes)


class Encoder(nn.Module):
    """After MiniLM (Wang et al., 2020): embeddings of words and positions, transformer layers, a pooled head."""

    def __init__(self, words: int = 50, length: int = 6, width: int = 16):
        super().__init__()
        self.words, self.positions = nn.Embedding(words, width), nn.Embedding(length, width)
        self.register_buffer("places", torch.arange(length), persistent=False)
        self.norm, self.layers = nn.LayerNorm(width), nn.Sequential(VitBlock(width, 2), VitBlock(width, 2))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.norm(self.words(tokens) + self.positions(self.places))
        return self.head(torch.tanh(self.layers(x).mean(1)))


@dataclass(frozen=True)
class Model:
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]  # of one image
    words: int = 0  # of tokens
    exported: int = 1  # images: attention over a batch of one cannot be told from other axes of one
    tolerance: float = 1e-7

    def inputs(self, count: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        if self.words:
            return torch.randint(self.words, (count, *self.shape), generator=generator)
        return torch.randn(count, *self.shape, generator=generator)


def image(size: int) -> tuple[int, ...]:
    return (3, size, size)


MODELS = {
    "resnet": Model(lambda: ResNet18(8, CLASSES), image(24)),
    "mobilenet_v2": Model(lambda: mobilenet_v2(CLASSES), image(64)),
    "unet": Model(lambda: Pooled(UNet((4, 6, 8), CLASSES), (2, 3)), image(12)),
    "vit": Model(lambda: VisionTransformer(16, 8, 16, 2, 2, CLASSES), image(16), exported=BATCH),
    "encoder": Model(Encoder, (6,), 50, BATCH),
    "llama": Model(lambda: Pooled(Llama(20, 16, 4, 2, 2), (1,)), (5,), 20, BATCH, 1e-5),  # its angles are f32
    "lstm": Model(lambda: Lstm(6, 8, CLASSES), (4, 6), exported=BATCH),
}
NORMED = ("resnet", "mobilenet_v2", "unet")
SLOW = ("mobilenet_v2", "resnet")


def chosen(names: tuple[str, ...]) -> list:
    return [pytest.param(name, marks=pytest.mark.long) if name in SLOW else name for name in names]


def compare(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], tolerance: float = 1e-7) -> None:
    """Each within the tolerance of its largest element. Some may vanish: biases that a norm takes away."""
    assert ours.keys() == theirs.keys()
    largest = max(np.abs(gradient).max() for gradient in theirs.values())
    alive = [name for name, gradient in theirs.items() if np.abs(gradient).max() > 1e-9 * largest]
    assert len(alive) >= 0.85 * len(theirs), "most gradients vanish"
    for name, gradient in theirs.items():
        scale = max(np.abs(gradient).max(), 1e-6 * largest)
        np.testing.assert_allclose(ours[name], gradient, rtol=0, atol=tolerance * scale, err_msg=name)


def check(model: Model, batch_norm: str) -> None:
    """With a learning rate of 1, the step of a parameter is its gradient."""
    if model.words:
        module = awake(model.make())
    else:
        module = awake(model.make(), model.inputs(1, 0))
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 0.1
    program = widened(read_torch(module, (model.inputs(model.exported, 0),)))
    train = Train(batch=BATCH, batch_norm=batch_norm, dropout="off")
    transform_module(program, Options(train=train, skip=frozenset({"narrow_doubles"})))
    graph = program.programs["train"]
    x, labels = model.inputs(BATCH, 1), torch.randint(CLASSES, (BATCH,), generator=torch.Generator().manual_seed(2))
    name = next(leaf.name for leaf in graph.leaves.values() if leaf.role is not None and leaf.role.value == "input")
    feeds = {name: x.double().numpy() if not model.words else x.numpy(), "labels": labels.numpy()}
    results = run(graph, {**feeds, "lr": np.float32(1)})

    twin = module.double().train(batch_norm == "train")
    for part in twin.modules():
        if isinstance(part, nn.Dropout):
            part.eval()
    loss = F.cross_entropy(twin(x if model.words else x.double()), labels)
    loss.backward()
    assert abs(loss.item() - float(results.outputs["loss"])) < 1e-7
    theirs = {name: p.grad.numpy() for name, p in twin.named_parameters() if p.grad is not None}
    steps = {leaf.name: leaf.data - results.updates[leaf.name] for leaf in graph.updates if leaf.name in theirs}
    compare(steps, theirs, model.tolerance)
    moved = {name: b.numpy() for name, b in twin.named_buffers() if name.endswith(("running_mean", "running_var"))}
    for name, buffer in moved.items():
        if batch_norm == "train":
            np.testing.assert_allclose(results.updates[name], buffer, rtol=1e-7, atol=1e-7, err_msg=name)
        else:
            assert name not in results.updates


@pytest.mark.parametrize("name", chosen(tuple(MODELS)))
def test_gradients_with_frozen_norms(name: str) -> None:
    check(MODELS[name], "frozen")


@pytest.mark.parametrize("name", chosen(NORMED))
def test_gradients_with_the_statistics_of_the_batch(name: str) -> None:
    check(MODELS[name], "train")
