"""The OpenCL target on the driver at hand: one op of each kind, training beside the processor, checkpoints of both.

All op cases are in test_op_cases.py (`opencl`, long).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cases.all_cases import OP_CASES
from cases.models import SMALL_CNN_MOMENTUM
from cases.op_case import Normal, OpCase, assert_agrees, case
from executors import OPENCL, Session
from op_module import op_module, operands, results
from subject import Subject

from edgec.backends.targets import find_target
from edgec.backends.tvm.backend import TvmBackend
from edgec.compiler.compile import lower_module
from edgec.graph.ops.add import Add
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.runtime import Model, RuntimeFailure, load
from edgec.runtime.layout import write_artifact
from edgec.tools.cli import main

# One item for each result; sums and rows of a team; rows of one item; every width of integers; halves; generators.
KINDS = (
    "Add",
    "Cast",
    "Conv2dInputGrad",
    "Conv2dWeightGrad",
    "Dropout",
    "GatherElements",
    "LayerNorm",
    "MaxPool2dGrad",
    "Moments",
    "ReduceMax",
    "SoftmaxCrossEntropy",
    "TopK",
)
SPECIAL = (
    case("nothing", Add(), Normal((0, 5)), Normal((0, 5))),
    case("of_nothing", ReduceSum((0,)), Normal((0, 4))),
    case("one_row", MatMul(), Normal((3, 1, 300)), Normal((300, 50))),
    case("by_nothing", MatMul(), Normal((9, 0)), Normal((0, 11))),
)
CASES = SPECIAL + tuple({type(case.op).__name__: case for case in OP_CASES if type(case.op).__name__ in KINDS}.values())
GPU, CPU = "mobile-gpu", "x86-64-v3"
CASE = SMALL_CNN_MOMENTUM


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return OPENCL.open(Subject(lambda: op_module(CASES)), tmp_path_factory.mktemp("ops"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_ops(session: Session, case: OpCase) -> None:
    ran = session.run(case.name, [operands(case)])
    assert ran.kernels
    for name, array in results(case).items():
        assert_agrees(case.op, ran.outputs[name], array)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    backends = [TvmBackend(find_target(name)) for name in (GPU, CPU)]
    result = lower_module(CASE.subject.lowered(), backends, CASE.subject.options)
    assert result is not None
    path = tmp_path_factory.mktemp("model") / "m.edge"
    write_artifact(path, result.artifact)
    return path


@pytest.fixture
def gpu(artifact: Path) -> Model:
    return load(artifact, target=GPU)


@pytest.fixture
def cpu(artifact: Path) -> Model:
    return load(artifact, threads=1, target=CPU)


def steps(model: Model, count: int, seed: int = 0) -> list[float]:
    return [model.step({"x": f["x"], "labels": f["labels"]}, lr=CASE.lr) for f in CASE.batches(count, seed)]


def test_the_processor_goes_first(artifact: Path) -> None:
    """OpenCL may be anything; it runs where nothing else does, or where it is asked for."""
    assert load(artifact, threads=1).target == CPU


def test_training_beside_the_processor(gpu: Model, cpu: Model, artifact: Path) -> None:
    """The same losses, parameters and inference; the same bits in a second run."""
    losses = steps(gpu, 5)
    np.testing.assert_allclose(losses, steps(cpu, 5), rtol=1e-5)
    for name, array in cpu.parameters().items():
        np.testing.assert_allclose(gpu.parameters()[name], array, rtol=1e-4, atol=1e-5)
    for feeds in CASE.images(2):
        expected = cpu.run(feeds)["logits"]
        np.testing.assert_allclose(gpu.run(feeds)["logits"], expected, atol=1e-4 * np.abs(expected).max())
    assert steps(load(artifact, target=GPU), 5) == losses


def test_checkpoints_move(gpu: Model, cpu: Model, artifact: Path, tmp_path: Path) -> None:
    steps(cpu, 2)
    cpu.save_checkpoint(tmp_path / "c.edgeckpt")
    gpu.load_checkpoint(tmp_path / "c.edgeckpt")
    np.testing.assert_allclose(steps(gpu, 2, seed=1), steps(cpu, 2, seed=1), rtol=1e-5)
    gpu.save_checkpoint(tmp_path / "g.edgeckpt")
    third = load(artifact, threads=1, target=CPU)
    third.load_checkpoint(tmp_path / "g.edgeckpt")
    for name, array in gpu.parameters().items():
        np.testing.assert_array_equal(third.parameters()[name], array)
    np.testing.assert_allclose(steps(third, 2, seed=2), steps(gpu, 2, seed=2), rtol=1e-5)


def test_nothing_is_updated_behind_a_loss_that_is_not_finite(gpu: Model) -> None:
    (batch,) = CASE.batches(1)
    before = gpu.parameters()
    with pytest.raises(RuntimeFailure) as caught:
        gpu.step({"x": np.full_like(batch["x"], np.nan), "labels": batch["labels"]}, lr=CASE.lr)
    assert caught.value.code == "E0605"
    for name, array in gpu.parameters().items():
        np.testing.assert_array_equal(array, before[name])


def test_sessions_have_arenas_of_their_own(gpu: Model) -> None:
    """An output stays as it is while another session runs."""
    first, second = CASE.images(2)
    with gpu.session() as one, gpu.session() as two:
        alone = one.run("infer", first)[1]["logits"]
        two.run("infer", second)
        np.testing.assert_array_equal(one.run("infer", first)[1]["logits"], alone)


def test_a_profile_of_a_gpu_has_no_peak(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the processor could do says nothing of it."""
    for target, where in ((GPU, "this machine's GPU"), (CPU, "this machine")):
        with pytest.raises(SystemExit) as ended:
            main(["profile", str(artifact), "--target", target, "--runs", "2", "--threads", "1", "--json"])
        record = json.loads(capsys.readouterr().out)
        assert ended.value.code == 0 and record["device"] == where
        assert (record["peak_gflops"] is None) == (target == GPU)
