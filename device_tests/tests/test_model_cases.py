"""Whole models on every executor that is meant for them: inference, training, any number of threads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from cases.models import INFERRED_CASES, MODEL_CASES, TRAINED_CASES, Feeds, ModelCase
from executors import AS_IMPORTED, DIFFERENTIATED, PLANS, RPI4, SPARSIFIED, SPECIALISED, X86, X86_V3, Executor, Session

MACHINES = (X86, X86_V3, RPI4)
TOLERANCE = 1e-4  # of the largest element
STEPS = 4


def differs(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """The largest error over all outputs, relative to the largest element of each."""
    assert actual.keys() == expected.keys()
    return max(float(np.abs(actual[name] - e).max() / np.abs(e).max()) for name, e in expected.items())


def infer(session: Session, case: ModelCase, seed: int = 1) -> list[dict[str, np.ndarray]]:
    return [session.run("infer", [feeds]).outputs for feeds in case.images(3, seed)]


def run_onnxruntime(case: ModelCase, images: list[Feeds]) -> list[dict[str, np.ndarray]]:
    source = case.onnx()
    source = str(source) if isinstance(source, Path) else source.SerializeToString()
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(names, feeds), strict=True)) for feeds in images]


@pytest.mark.parametrize("case", INFERRED_CASES, ids=str)
@pytest.mark.parametrize("executor", [SPECIALISED, *PLANS, *MACHINES], ids=str)
def test_inference(executor: Executor, case: ModelCase, tmp_path: Path) -> None:
    """As the graph that was imported says; and as onnxruntime does, where it can."""
    actual = infer(executor.open(case.subject, tmp_path), case)
    expected = infer(AS_IMPORTED.open(case.subject, tmp_path), case)
    assert differs(expected[0], expected[1]) > 10 * TOLERANCE, "the model gives the same output for every input"
    for ours, wanted in zip(actual, expected, strict=True):
        assert differs(ours, wanted) <= TOLERANCE
    if case.onnx is not None:
        for ours, theirs in zip(actual, run_onnxruntime(case, case.images(3, seed=1)), strict=True):
            assert differs(ours, theirs) <= TOLERANCE


@pytest.mark.parametrize("case", TRAINED_CASES, ids=str)
@pytest.mark.parametrize("executor", [SPARSIFIED, *PLANS, *MACHINES], ids=str)
def test_training(executor: Executor, case: ModelCase, tmp_path: Path) -> None:
    """Losses of every step, and what the trained model says, as the differentiated graph has them."""
    session, reference = (e.open(case.subject, tmp_path) for e in (executor, DIFFERENTIATED))
    batches = case.batches(STEPS, seed=2)
    losses, expected = session.run("train", batches).losses, reference.run("train", batches).losses
    np.testing.assert_allclose(losses, expected, rtol=TOLERANCE)
    assert len(set(losses)) == STEPS
    before = infer(AS_IMPORTED.open(case.subject, tmp_path), case)
    for ours, wanted, untrained in zip(infer(session, case), infer(reference, case), before, strict=True):
        assert differs(ours, wanted) <= TOLERANCE
        assert differs(untrained, wanted) > 10 * TOLERANCE, "training changes nothing that could be seen"


@pytest.mark.parametrize("case", MODEL_CASES, ids=str)
@pytest.mark.parametrize("executor", MACHINES, ids=str)
def test_results_do_not_depend_on_the_number_of_threads(executor: Executor, case: ModelCase, tmp_path: Path) -> None:
    seen = set()
    for threads in (1, 2, 4):
        (tmp_path / str(threads)).mkdir()
        session = executor.open(case.subject, tmp_path / str(threads), threads)
        losses = session.run("train", case.batches(2, seed=3)).losses if case.train else np.empty(0)
        arrays = [array for outputs in infer(session, case) for array in outputs.values()]
        seen.add(b"".join(array.tobytes() for array in (losses, *arrays)))
    assert len(seen) == 1
