"""Gradients of compiled kernels against torch's in float64, of whole published models: one plain step.

Those without kinks, and some with; where activations of single precision within rounding of a kink take another side
than those of double, torch's own gradients in single precision miss the bar as well.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import edgec
from edgec.tools.testing.gradient_bar import BAR, gradient_errors
from edgec.tools.testing.published import BATCH, PUBLISHED

torch.set_num_threads(1)
RATE = 2.0**20  # a step so long that rounding to the parameter's precision hides nothing of its gradient


@pytest.mark.long
@pytest.mark.parametrize("name", ["vit", "minilm", "mobilenet_v2", "text_lines"])
def test_gradients_are_torchs(name: str, tmp_path: Path) -> None:
    model, labels = PUBLISHED[name](), np.array([1, 0])
    edgec.compile(
        model.source,
        shapes=model.shapes or None,
        example_inputs=model.example_inputs,
        train=edgec.Train(batch=BATCH, dropout="off"),
        out=tmp_path / "m.edge",
    )
    with edgec.load(tmp_path / "m.edge", threads=1) as loaded:
        before = loaded.parameters()
        names = [info.name for info in loaded.signature("train").inputs]
        loss = loaded.step(dict(zip(names, (*model.inputs, labels), strict=True)), lr=RATE)
        after, trained = loaded.parameters(), loaded.trained
    expected, theirs = model.torch_gradients(labels, "frozen")
    assert loss == pytest.approx(expected, rel=1e-5)
    ours = {key: (before[key].astype(np.float64) - after[key]) / RATE for key in trained}
    worst = max(gradient_errors(ours, theirs).values())
    sys.stdout.write(f"\n{name}: compiled gradients within {worst:.1e} of torch's in float64\n")
    assert worst <= BAR
