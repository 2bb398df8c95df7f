"""The Fashion-MNIST network on Cortex-M boards under qemu: trained there and here from the same sources."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edgec.compiler.train import Train
from edgec.runtime import load
from edgec.tools.api import Request, build, parse_targets
from edgec.tools.static_library import STACK_BYTES, StaticLibrary, write_static
from edgec.tools.testing.cortex_m import (
    BOARDS,
    TrainingRun,
    build_image,
    emulate,
    missing_tools,
    run_training_here,
    run_training_image,
)
from edgec.tools.testing.data import fashion_mnist
from edgec.tools.testing.models import small_cnn_onnx

pytestmark = pytest.mark.skipif(bool(missing_tools()), reason=f"needs {', '.join(missing_tools())}")

STEPS = 10
LR = np.float32(0.01)


def library(target: str, folder: Path, train: Train | None) -> StaticLibrary:
    result = build(Request(small_cnn_onnx(), parse_targets(target), batch=1, train=train), folder / "cnn.edge")
    assert result is not None
    return write_static(result, folder / target, "small_cnn")


@pytest.fixture(scope="module")
def feeds() -> dict[str, np.ndarray]:
    images, labels = fashion_mnist("train")
    return {"x": images[:STEPS, None], "labels": labels[:STEPS, None], "lr": np.full(STEPS, LR)}


@pytest.fixture(scope="module")
def trained(feeds: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory):
    """The library for a Cortex-M7, its run there, and its run here."""
    made = library("cortex-m7", tmp_path_factory.mktemp("m7"), Train(batch=1))
    return made, run_training_image(made, BOARDS["cortex-m7"], feeds), run_training_here(made, feeds)


def assert_same_bits(left: TrainingRun, right: TrainingRun) -> None:
    assert [run.program for run in left.runs] == [run.program for run in right.runs]
    for one, other in zip(left.runs, right.runs, strict=True):
        assert {name: array.tobytes() for name, array in one.results.items()} == {
            name: array.tobytes() for name, array in other.results.items()
        }
    assert left.checksum == right.checksum


def test_training_gives_the_same_bits_there_and_here(trained):
    _, there, here = trained
    assert_same_bits(there, here)
    assert len(there.losses) == STEPS and np.isfinite(there.losses).all() and len(set(there.losses.tolist())) == STEPS
    before, after = there.predictions
    assert not np.array_equal(before.results["logits"], after.results["logits"])


def test_planned_memory_is_the_memory_used(trained, capsys):
    made, there, _ = trained
    assert made.memory_bytes == there.memory_bytes == there.used_bytes
    assert there.sizes is not None
    ram = there.sizes.data + there.sizes.bss
    # The harness itself has a table of 1 KB for its checksum.
    assert made.memory_bytes <= ram <= made.memory_bytes + 2048
    assert 0 < there.stack_bytes <= STACK_BYTES
    with capsys.disabled():
        sys.stdout.write(
            f"\nsmall CNN on a Cortex-M7: {there.sizes.text} bytes of flash, {ram} of .data and .bss, "
            f"{there.stack_bytes} of stack; {there.infer_instructions} instructions for an inference, "
            f"{there.step_instructions} for a training step\n"
        )


def test_vector_kernels_agree(trained, feeds, tmp_path):
    """Another machine, other kernels, sums in another order."""
    _, there, _ = trained
    build(Request(small_cnn_onnx(), parse_targets("x86-64-v3"), batch=1, train=Train(batch=1)), tmp_path / "x86.edge")
    with load(tmp_path / "x86.edge", threads=1) as model:
        before = model.run({"x": feeds["x"][0]})["logits"]
        losses = [
            model.step({"x": x, "labels": y}, lr=float(LR)) for x, y in zip(feeds["x"], feeds["labels"], strict=True)
        ]
        after = model.run({"x": feeds["x"][0]})["logits"]
    np.testing.assert_allclose(there.losses, losses, rtol=1e-4, atol=1e-4)
    for run, logits in zip(there.predictions, (before, after), strict=True):
        np.testing.assert_allclose(run.results["logits"], logits[0], rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> StaticLibrary:
    return library("cortex-m4", tmp_path_factory.mktemp("m4"), None)


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_every_board_infers(board, classifier, feeds):
    """C kernels are one text for all of them."""
    first = {"x": feeds["x"][:1]}
    assert_same_bits(run_training_image(classifier, board, first), run_training_here(classifier, first))


def test_the_example_runs_with_a_standard_library(classifier, tmp_path):
    """newlib's printf over semihosting: the sources get along with a C library's start."""
    sources = [*classifier.sources, classifier.folder / "example.c"]
    image = build_image(classifier, BOARDS["cortex-m4"], tmp_path, sources, "--specs=rdimon.specs")
    text = emulate(image, BOARDS["cortex-m4"])
    assert text.splitlines()[0] == f"cortex-m4: {classifier.memory_bytes} bytes of memory"
    assert "infer: success" in text
