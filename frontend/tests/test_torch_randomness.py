"""What is drawn in training and lost in an export: found, with the layer's name, and nothing of the module changed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import edgec
from edgec.frontend.torch import lost_randomness

torch.set_num_threads(1)


class Branches(nn.Module):
    """Drops whole samples of a branch, as stochastic depth does."""

    def forward(self, x: Tensor) -> Tensor:
        keep = x.new_empty(len(x), 1, 1, 1).bernoulli_(0.8) if self.training else 1.0
        return x + torch.relu(x) * keep


class Attention(nn.Module):
    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        return F.scaled_dot_product_attention(x, x, x, dropout_p=self.rate if self.training else 0.0)


class Net(nn.Module):
    """A norm, whose statistics shall stay, and the layer in question."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.conv, self.norm, self.layer, self.pool = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), layer, nn.Flatten()

    def forward(self, image: Tensor) -> Tensor:
        return self.pool(self.layer(self.norm(self.conv(image))))


class Sequences(nn.Module):
    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, image: Tensor) -> Tensor:
        x = image.flatten(2)
        found = self.layer(x, x, x) if isinstance(self.layer, nn.MultiheadAttention) else self.layer(x)
        return found[0]


IMAGE = torch.randn(2, 3, 10, 10, generator=torch.Generator().manual_seed(0))
LOST = [
    Net(nn.Dropout2d(0.2)),
    Net(Attention(0.1)),
    Net(Branches()),
    Net(nn.FeatureAlphaDropout(0.1)),
    Sequences(nn.LSTM(100, 4, num_layers=2, dropout=0.5)),
    Sequences(nn.MultiheadAttention(100, 2, dropout=0.1)),
]
KEPT = [Net(nn.Dropout(0.2)), Net(nn.Dropout2d(0.0)), Net(Attention(0.0)), Sequences(nn.LSTM(100, 4, num_layers=2))]


@pytest.mark.parametrize("module", LOST, ids=lambda module: type(module.layer).__name__)
def test_what_is_lost_is_named(module: nn.Module) -> None:
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module.train()
    generator = torch.random.get_rng_state()
    assert lost_randomness(module, (IMAGE,)) == [f"`layer` ({type(module.layer).__name__})"]
    assert module.training and module.layer.training and torch.equal(generator, torch.random.get_rng_state())
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
    assert not module.layer._forward_hooks and not module.layer._forward_pre_hooks


@pytest.mark.parametrize("module", KEPT, ids=lambda module: type(module.layer).__name__)
def test_what_is_exported_is_not(module: nn.Module) -> None:
    assert lost_randomness(module.eval(), {"image": IMAGE}) == [] and not module.training


def test_a_forward_that_fails_in_training_mode_says_nothing() -> None:
    class Picky(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            if self.training:
                raise RuntimeError("not today")
            return image

    assert lost_randomness(Net(Picky()), (IMAGE,)) == []


def test_training_without_a_dropout_is_said(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout2d(0.5), nn.Flatten(), nn.Linear(256, 3))
    with pytest.warns(UserWarning, match=r"leaves out what `1` \(Dropout2d\) would draw"):
        edgec.compile(module, example_inputs=(IMAGE[:1],), train=edgec.Train(batch=2), out=tmp_path / "m.edge")
