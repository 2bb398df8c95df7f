"""The torch modules of the table: what both sides are given, by name, with the inputs of a batch.

Weights are random: no time depends on them, but for denormal numbers, which He's initialisation keeps away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edgec.tools.testing.minilm import MiniLm
from edgec.tools.testing.torch_models import ResNet18, VitBlock, awake, mobilenet_v2_whole


class TokenModel(nn.Module):
    """A transformer that says the next token: tokens i64[N,S] -> logits f32[N,vocabulary,S]."""

    def __init__(self, vocabulary: int = 1000, length: int = 64, width: int = 128, heads: int = 4, depth: int = 4):
        super().__init__()
        self.embedding, self.positions = nn.Embedding(vocabulary, width), nn.Parameter(torch.zeros(length, width))
        self.blocks = nn.Sequential(*(VitBlock(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.blocks(self.embedding(tokens) + self.positions)
        return self.head(self.norm(x)).transpose(1, 2)


class SentenceClassifier(nn.Module):
    """MiniLM and two classes: tokens, mask i64[N,S] -> logits f32[N,2]."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = MiniLm(), nn.Linear(384, 2)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.head(self.encoder(tokens, mask))


@dataclass(frozen=True)
class Subject:
    """`shapes` of inputs without the batch; `integers` gives the range of those that are no floats, both ends included.

    Labels are classes 0..classes-1, of shape [batch, *labels].
    """

    make: Callable[[], nn.Module]
    shapes: Mapping[str, tuple[int, ...]]
    integers: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    classes: int = 10
    labels: tuple[int, ...] = ()

    def inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Examples of what the module takes; integers are the least that there are."""
        return tuple(
            torch.full((batch, *shape), self.integers[name][0]) if name in self.integers else torch.zeros(batch, *shape)
            for name, shape in self.shapes.items()
        )


def _mobilenet_v2() -> nn.Module:
    module = awake(mobilenet_v2_whole(10), torch.zeros(1, 3, 64, 64))
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 0.1
    return module


def _resnet18() -> nn.Module:
    return awake(ResNet18(classes=10), torch.zeros(1, 3, 64, 64))


def _mobilenet_v2_folded() -> nn.Module:
    """With every batch norm in the convolution before it."""
    module = _mobilenet_v2()
    for part in module.modules():
        if isinstance(part, nn.Sequential) and any(isinstance(child, nn.BatchNorm2d) for child in part):
            part[0], part[1] = fuse_conv_bn_eval(part[0], part[1]), nn.Identity()
    return module


_TOKENS = {"tokens": (128,), "mask": (128,)}
_SENTENCES = {"tokens": (1, 30_521), "mask": (1, 1)}
SUBJECTS = {
    "transformer": Subject(TokenModel, {"tokens": (64,)}, {"tokens": (0, 999)}, classes=1000, labels=(64,)),
    "minilm": Subject(MiniLm, _TOKENS, _SENTENCES),
    "minilm_classifier": Subject(SentenceClassifier, _TOKENS, _SENTENCES, classes=2),
    "resnet18_96": Subject(_resnet18, {"x": (3, 96, 96)}),
} | {
    f"mobilenet_v2_{size}{kind}": Subject(make, {"x": (3, size, size)})
    for size in (96, 224)
    for kind, make in {"": _mobilenet_v2, "_folded": _mobilenet_v2_folded}.items()
}
