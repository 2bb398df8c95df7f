"""Training beside torch: the same weights to begin with, the same pictures in the same order, the same rates."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import edgec
from edgec.runtime.dataset import batches
from edgec.runtime.fit import evaluate
from edgec.runtime.schedule import Cosine, WarmUp
from edgec.tools.testing.data import fashion_mnist
from edgec.tools.testing.models import small_cnn_onnx, small_cnn_torch
from edgec.tools.testing.torch_models import VitBlock

torch.set_num_threads(1)
BATCH, FIRST, STEPS = 64, 20, 300


class SmallTransformer(nn.Module):
    """x[N,1,28,28] -> logits[N,10]: sixteen patches, two blocks, the mean of all tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 32, 7, 7)
        self.positions = nn.Parameter(torch.zeros(1, 16, 32))
        self.blocks = nn.Sequential(VitBlock(32, 4), VitBlock(32, 4))
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.blocks(tokens)).mean(1))


@dataclass(frozen=True)
class Rule:
    train: dict
    optimizer: type[torch.optim.Optimizer]
    torch: dict
    lr: float


RULES = {
    "sgd": Rule({"momentum": 0.9}, torch.optim.SGD, {"momentum": 0.9}, 0.02),
    "adamw": Rule({"optimizer": "adamw"}, torch.optim.AdamW, {}, 1e-3),
}


def compiled(model: str, rule: Rule, out: Path) -> nn.Module:
    """Writes the artifact; the twin in torch with the same weights."""
    train = edgec.Train(batch=BATCH, **rule.train)
    if model == "cnn":
        onnx.save(small_cnn_onnx(), out.with_suffix(".onnx"))
        edgec.compile(out.with_suffix(".onnx"), batch=1, train=train, out=out)
        return small_cnn_torch()
    torch.manual_seed(0)
    module = SmallTransformer()
    edgec.compile(module, example_inputs=(torch.zeros(BATCH, 1, 28, 28),), train=train, out=out)
    return module


def both_losses(model: edgec.runtime.Model, twin: nn.Module, rule: Rule, steps: int) -> tuple[np.ndarray, np.ndarray]:
    images, labels = fashion_mnist("train")
    optimizer = rule.optimizer(twin.parameters(), lr=rule.lr, **rule.torch)
    schedule = WarmUp(10, Cosine(rule.lr))
    ours, theirs = [], []
    for step, (_, rows) in zip(range(steps), batches(len(labels), BATCH, epochs=1, seed=0), strict=False):
        optimizer.param_groups[0]["lr"] = rate = schedule.rate(step, STEPS)
        ours.append(model.step({"x": images[rows], "labels": labels[rows]}, lr=rate))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(twin(torch.from_numpy(images[rows])), torch.from_numpy(labels[rows]))
        loss.backward()
        optimizer.step()
        theirs.append(loss.item())
    return np.array(ours), np.array(theirs)


@pytest.mark.parametrize(("model", "name"), [("cnn", "sgd"), ("transformer", "adamw")])
def test_the_first_losses_are_torchs(model: str, name: str, tmp_path: Path) -> None:
    twin = compiled(model, RULES[name], tmp_path / "m.edge").train()
    with edgec.load(tmp_path / "m.edge", threads=1) as loaded:
        ours, theirs = both_losses(loaded, twin, RULES[name], FIRST)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
    assert theirs[-5:].mean() < 0.9 * theirs[:5].mean()


@pytest.mark.long
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("model", ["cnn", "transformer"])
def test_three_hundred_steps_end_where_torchs_do(model: str, name: str, tmp_path: Path) -> None:
    """Losses over 20 steps within 1 %, accuracy on all test pictures within half a point."""
    twin = compiled(model, RULES[name], tmp_path / "m.edge").train()
    images, labels = fashion_mnist("test")
    with edgec.load(tmp_path / "m.edge") as loaded:
        ours, theirs = both_losses(loaded, twin, RULES[name], STEPS)
        accuracy = evaluate(loaded, {"x": images, "labels": labels}).accuracy
    with torch.no_grad():
        predicted = [twin.eval()(part).argmax(1) for part in torch.from_numpy(images).split(1000)]
    expected = (torch.cat(predicted).numpy() == labels).mean()
    apart = np.abs(ours[:FIRST] - theirs[:FIRST]).max()
    figures = f"first losses {apart:.1e} apart, accuracy {accuracy:.2%}, torch {expected:.2%}"
    sys.stdout.write(f"\n{model}, {name}: {figures}\n")
    np.testing.assert_allclose(ours[:FIRST], theirs[:FIRST], rtol=0, atol=1e-4)
    np.testing.assert_allclose(ours.reshape(-1, 20).mean(1), theirs.reshape(-1, 20).mean(1), rtol=0.01)
    assert abs(accuracy - expected) < 0.005 and accuracy > 0.7
