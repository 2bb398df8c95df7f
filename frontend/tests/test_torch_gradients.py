"""The derived training step of torch modules, interpreted in double precision, against torch's own gradients."""

from __future__ import annotations

from collections.abc import Callable

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
from edgec.tools.testing.minilm import MiniLm
from edgec.tools.testing.torch_models import Lstm, UNet, VisionTransformer, awake

torch.set_num_threads(1)
BATCH, CLASSES = 3, 5


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def tokens(rows: int) -> Tensor:
    """With 0 among them, which an embedding may call padding: that row has no gradient."""
    drawn = torch.randint(0, 30, (rows, 8), generator=torch.Generator().manual_seed(rows))
    return drawn * (torch.arange(8) % 3 > 0)


class Pooled(nn.Module):
    """Scores for each pixel, averaged: one for each class."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).mean((2, 3))


class Classifier(nn.Module):
    """Of sentences: a mask as floats, a learned token in front, and a head over what the encoder gives."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = MiniLm(30, 8, 16, 2, 32, 2), nn.Linear(16, CLASSES)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.head(self.encoder(tokens, mask))


class Layers(nn.Module):
    """Torch's own transformer layer, recurrent layers in both orders of their axes, a weight that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu", norm_first=True)
        self.gru, self.rnn = nn.GRU(8, 6, batch_first=True), nn.RNN(6, 6)
        self.steps = nn.ParameterList([nn.Parameter(torch.ones(6)), nn.Parameter(torch.zeros(6))])
        self.twice = nn.Linear(6, 6)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.gru(self.block(self.embedding(tokens)))[0]
        x = self.rnn(x.transpose(0, 1))[1][0] * self.steps[0] + self.steps[1]
        return self.head(self.twice(torch.tanh(self.twice(x))))


# Name: the module, and inputs for so many rows.
MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], tuple[Tensor, ...]]]] = {
    "vit": (lambda: VisionTransformer(16, 8, 16, 2, 2, CLASSES), lambda n: (draw(n, 3, 16, 16),)),
    "minilm": (Classifier, lambda n: (tokens(n), (torch.arange(8) < 6).long().expand(n, 8).contiguous())),
    "lstm": (lambda: Lstm(12, 6, CLASSES), lambda n: (draw(n, 5, 12),)),
    "unet": (lambda: Pooled(UNet((4, 8), CLASSES)), lambda n: (draw(n, 3, 8, 8),)),
    "layers": (Layers, lambda n: (tokens(n),)),
}


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_torchs(name: str) -> None:
    """The model is exported for one row and trained with three: with a learning rate of 1, the step is the gradient."""
    make, inputs = MODELS[name]
    one = tuple(x.float() if x.is_floating_point() else x for x in inputs(1))
    module = awake(make(), *one if name == "unet" else ())
    compiled = read_torch(module, one)
    transform_module(compiled, Options(train=Train(batch=BATCH, dropout="off")))
    graph = compiled.programs["train"]
    labels = torch.arange(BATCH) % CLASSES
    feeds = {leaf.name: x.numpy() for leaf, x in zip(graph.leaves.values(), inputs(BATCH), strict=False)}
    results = run(graph, {**feeds, "labels": labels.numpy(), "lr": np.float32(1)}, np.float64)
    ours = {key: graph.leaves[key].data - new for key, new in results.updates.items()}

    module.double()
    loss = F.cross_entropy(module(*inputs(BATCH)), labels)
    loss.backward()
    theirs = {key: p.grad.numpy() for key, p in module.named_parameters() if p.grad is not None}
    np.testing.assert_allclose(results.outputs["loss"], loss.item(), rtol=1e-6)
    assert ours.keys() == theirs.keys()
    largest = max(np.abs(gradient).max() for gradient in theirs.values())
    for key, gradient in theirs.items():
        # The arithmetic is in double precision; constants of the program, such as a scale of 1/sqrt(3), are f32.
        np.testing.assert_allclose(ours[key], gradient, rtol=0, atol=1e-6 * largest, err_msg=key)
    assert sum(np.abs(gradient).max() > 1e-6 for gradient in theirs.values()) > 0.8 * len(theirs)
