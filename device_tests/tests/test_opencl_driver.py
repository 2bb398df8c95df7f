"""What the runtime asks of an OpenCL driver: groups that fit, programs compiled once, one wait a step, nothing left.

The driver at hand stands behind `shim_opencl.c`, which counts its calls and makes it smaller than it is.
"""

from __future__ import annotations

import ctypes.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cases.models import SMALL_CNN_MOMENTUM as CASE
from cases.op_case import Normal, assert_agrees, case
from op_module import op_module, operands, results

from edgec.backends.targets import find_target
from edgec.backends.tvm.backend import TvmBackend
from edgec.compiler.compile import lower_module
from edgec.compiler.passbase import Options
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_weight_grad import Conv2dWeightGrad
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.ops.relu import Relu
from edgec.graph.ops.softmax import Softmax
from edgec.runtime import load
from edgec.runtime.layout import write_artifact

HERE = Path(__file__).parents[1]
GPU, CPU = "mobile-gpu", "x86-64-v3"
FEW = 64  # items of the smallest groups that there are kernels for
STEPS = 3
# Every way in which the items of a group work together: tiles of both sizes, parts and their sums, teams.
OPS = (
    case("large_tiles", MatMul(), Normal((601, 48)), Normal((48, 643))),
    case("small_tiles", Conv2d(pads=(1, 1, 1, 1)), Normal((1, 9, 17, 15)), Normal((35, 9, 3, 3))),
    case("parts_of_depth", MatMul(), Normal((33, 1100)), Normal((1100, 40))),
    case(
        "depthwise", Conv2dWeightGrad(groups=40, kernel_size=(5, 5)), Normal((2, 40, 36, 36)), Normal((2, 40, 32, 32))
    ),
    case("parts_of_a_sum", ReduceSum((0, 1), keepdims=True), Normal((150, 67))),
    case("team", Softmax(1), Normal((7, 300))),
    case("alone", Relu(), Normal((1300,))),
)


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if ctypes.util.find_library("OpenCL") is None:
        pytest.skip("needs an OpenCL driver: apt-get install pocl-opencl-icd")
    path = tmp_path_factory.mktemp("shim") / "libOpenCL.so.1"
    words = ["gcc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-fvisibility=hidden"]
    subprocess.run([*words, HERE / "shim_opencl.c", "-o", path, "-ldl"], check=True)
    return path


def real_library() -> str:
    """The path of the library that this process would load."""
    ctypes.CDLL("libOpenCL.so.1")
    lines = Path("/proc/self/maps").read_text().splitlines()
    return next(line.split()[-1] for line in lines if "libOpenCL.so" in line)


class Driver:
    """Runs a child behind the shim, with a cache of its own."""

    def __init__(self, shim: Path, folder: Path):
        self.folder, self.cache = folder, folder / "cache"
        self._known = os.environ | {
            "LD_LIBRARY_PATH": str(shim.parent),
            "SHIM_REAL": real_library(),
            "EDGEC_CACHE": str(self.cache),
            "OMP_NUM_THREADS": "1",
        }

    def __call__(self, artifact: Path, feeds: dict, *jobs: str, **environment: object) -> tuple[dict, dict]:
        np.savez(self.folder / "feeds.npz", **feeds)
        found = self.folder / "results.npz"
        found.unlink(missing_ok=True)
        words = [sys.executable, HERE / "opencl_child.py", artifact, self.folder / "feeds.npz", found, *jobs]
        known = self._known | {name: str(value) for name, value in environment.items()}
        done = subprocess.run(words, env=known, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), dict(np.load(found)) if found.exists() else {}


@pytest.fixture
def drive(shim: Path, tmp_path: Path) -> Driver:
    return Driver(shim, tmp_path)


def written(folder: Path, module, options: Options, *targets: str) -> Path:
    result = lower_module(module, [TvmBackend(find_target(name)) for name in targets], options)
    assert result is not None
    write_artifact(folder / "a.edge", result.artifact)
    return folder / "a.edge"


@pytest.fixture(scope="module")
def ops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("ops"), op_module(OPS), Options(), GPU)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("model"), CASE.subject.lowered(), CASE.subject.options, GPU, CPU)


OP_FEEDS = {f"{case.name}/{name}": array[None] for case in OPS for name, array in operands(case).items()}
OP_JOBS = tuple(f"{case.name}:1" for case in OPS)


def model_feeds() -> dict[str, np.ndarray]:
    batches = CASE.batches(STEPS)
    train = {f"train/{name}": np.stack([batch[name] for batch in batches]) for name in batches[0]}
    return train | {"infer/x": np.stack([feeds["x"] for feeds in CASE.images(1)])}


# ---- Groups. ----


@pytest.mark.parametrize(
    ("limits", "largest"),
    [
        ({"SHIM_DEVICE_GROUP": 128}, 128),
        ({"SHIM_KERNEL_GROUP": 64, "SHIM_LOCAL": 8192}, 64),
    ],
    ids=str,
)
def test_groups_fit_the_device(drive: Driver, ops: Path, limits: dict, largest: int) -> None:
    """The largest that the device and each kernel allow; the results are right with all of them."""
    record, got = drive(ops, OP_FEEDS, *OP_JOBS, **limits)
    assert record["counts"][OP_JOBS[-1]]["largest_group"] == largest
    for one in OPS:
        for name, array in results(one).items():
            assert_agrees(one.op, got[f"{one.name}/{name}"], array)


def test_training_in_small_groups(drive: Driver, model: Path) -> None:
    """Kernels that were joined too, some parts of which are items that do not wait for one another."""
    record, got = drive(model, model_feeds(), f"train:{STEPS}", SHIM_KERNEL_GROUP=FEW)
    assert any("_more" in kernel for kernel, _ in record["profile"][f"train:{STEPS}"])
    with load(model, threads=1, target=CPU) as cpu, cpu.session() as session:
        expected = [session.run("train", batch)[0] for batch in CASE.batches(STEPS)]
    np.testing.assert_allclose(got["train/losses"], expected, rtol=1e-5)


def test_only_what_does_not_fit_is_built_again(drive: Driver, ops: Path) -> None:
    """A device for large groups needs one program, one for small ones another, one whose compiler decides both."""
    builds = {}
    for name in ("SHIM_DEVICE_GROUP", "SHIM_KERNEL_GROUP"):
        record, _ = drive(ops, OP_FEEDS, OP_JOBS[-1], **{name: FEW, "EDGEC_CACHE": "/dev/null"})
        builds[name] = record["counts"]["opened"]["sources"]
    assert builds == {"SHIM_DEVICE_GROUP": 1, "SHIM_KERNEL_GROUP": 2}


@pytest.mark.parametrize("limits", [{"SHIM_KERNEL_GROUP": FEW - 1}, {"SHIM_LOCAL": 1000}], ids=str)
def test_a_device_that_is_too_small(drive: Driver, ops: Path, limits: dict) -> None:
    record, _ = drive(ops, OP_FEEDS, **limits)
    assert record["error"] == "E0504"
    assert record["message"] == "the GPU allows a kernel too few work items or too little local memory"
    assert "--target mobile-gpu,arm-cpu" in record["hint"]


def test_too_little_memory(drive: Driver, model: Path) -> None:
    record, _ = drive(model, model_feeds(), SHIM_MEMORY=5000)
    assert record["error"] == "E0609" and "bytes are needed, 5000 are free" in record["message"]


# ---- Programs. ----


def opened(record: dict) -> tuple[int, int]:
    """Programs built from source and from what was kept."""
    return record["counts"]["opened"]["sources"], record["counts"]["opened"]["binaries"]


def test_programs_are_compiled_once(drive: Driver, model: Path) -> None:
    feeds = model_feeds()
    first, expected = drive(model, feeds, f"train:{STEPS}")
    assert opened(first) == (1, 0)
    second, got = drive(model, feeds, f"train:{STEPS}")
    assert opened(second) == (0, 1)
    np.testing.assert_array_equal(got["train/losses"], expected["train/losses"])
    (file,) = (drive.cache / "programs").iterdir()
    whole = file.read_bytes()

    changed = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
    for damaged in (whole[:-1], b"", changed):
        file.write_bytes(damaged)
        assert opened(drive(model, feeds)[0]) == (1, 0)
        assert len(file.read_bytes()) > len(whole) // 2, "it is written anew"
    assert opened(drive(model, feeds)[0]) == (0, 1)


def test_programs_of_another_driver_are_not_used(drive: Driver, model: Path) -> None:
    feeds = model_feeds()
    assert opened(drive(model, feeds)[0]) == (1, 0)
    assert opened(drive(model, feeds, SHIM_DRIVER="another")[0]) == (1, 0)
    assert opened(drive(model, feeds, SHIM_DRIVER="another")[0]) == (0, 1)
    assert opened(drive(model, feeds, SHIM_DRIVER="another", SHIM_NO_BINARIES=1)[0]) == (1, 0)


@pytest.mark.parametrize("folder", ["/dev/null", "/proc/none"])
def test_without_a_folder_for_programs(drive: Driver, model: Path, folder: str) -> None:
    """A cache that cannot be written is a cache that misses."""
    for _ in range(2):
        assert opened(drive(model, model_feeds(), EDGEC_CACHE=folder)[0]) == (1, 0)


# ---- Steps. ----


def test_one_wait_a_step(drive: Driver, model: Path) -> None:
    """All copies and kernels of a run are in the queue before it waits, once. No step leaves anything behind."""
    record, _ = drive(model, model_feeds(), "infer:1", "infer:5", f"train:{STEPS}", "train:100", SHIM_NANOSECONDS=777)
    counts, profiles = record["counts"], record["profile"]
    for program, fewer, more, runs in (
        ("infer", "infer:1", "infer:5", 5),
        ("train", f"train:{STEPS}", "train:100", 100),
    ):
        zeros = sum(kernel == "zero" for kernel, _ in profiles[fewer])
        profiled = sum(kernel != "guard" for kernel, _ in profiles[fewer])
        assert profiled >= 5 and all(ns == 777 for kernel, ns in profiles[fewer] if kernel != "guard")
        assert counts[more]["launches"] - counts[fewer]["launches"] == (runs + 1) * (profiled - zeros)
        guards = len(profiles[fewer]) - profiled
        assert counts[more]["waits"] - counts[fewer]["waits"] == runs + 2 * profiled + 2 + guards
        assert counts[more]["live_objects"] == counts[fewer]["live_objects"] + (program == "infer")
        assert counts[more]["live_bytes"] == counts[fewer]["live_bytes"] > 0
    assert counts["closed"]["live_bytes"] == 0 and counts["closed"]["live_objects"] == 0
    assert record["resident"]["train:100"] - record["resident"][f"train:{STEPS}"] < 4096
