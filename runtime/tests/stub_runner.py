"""`edgec-run` beside drivers of GPUs that are none: here under sanitizers, and on an emulated aarch64."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from library_sources import CSRC, SOURCES, STRICT

from edgec.runtime.tensorfile import read_tensors, write_tensors

HERE = Path(__file__).parent
SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@dataclass(frozen=True)
class Machine:
    """How to build for it and to run a program on it."""

    compiler: str
    flags: tuple[str, ...]
    prefix: tuple[str, ...]


MACHINES = {
    "here": Machine("gcc", SANITIZED, ()),
    "aarch64": Machine("aarch64-linux-gnu-gcc", ("-O2",), ("qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu")),
}


class Runner:
    """`edgec-run` and the stubs in a folder."""

    def __init__(self, folder: Path, machine: Machine):
        self.folder, self.machine = folder, machine
        self.program, self.drivers = folder / "edgec-run", folder / "drivers"
        self.drivers.mkdir()
        sources = [CSRC / "edgec_run.c", *SOURCES]
        common = [machine.compiler, *STRICT, "-pthread", *machine.flags]
        subprocess.run([*common, *sources, "-o", self.program, "-ldl"], check=True)
        stub = [HERE / "stub_cuda.c", CSRC / "invoke.c", "-o", self.drivers / "libcuda.so.1"]
        quiet = ["-Wno-cast-function-type", "-Wno-conversion", "-ffp-contract=off", f"-I{HERE}"]
        self.shared = [*common, *quiet, "-fPIC", "-shared"]
        subprocess.run([*self.shared, *stub], check=True)

    def with_library(self, source: str, name: str) -> Path:
        """A folder with another stub, on top of the driver's."""
        folder = self.folder / name
        folder.mkdir()
        driver = self.drivers / "libcuda.so.1"
        subprocess.run([*self.shared, HERE / source, driver, "-o", folder / name], check=True)
        return folder

    def __call__(self, artifact, program, arrays, *options, drivers=True, libraries=None, **environment):
        inputs, outputs = self.folder / "in.tensors", self.folder / "out.tensors"
        outputs.unlink(missing_ok=True)
        write_tensors(inputs, arrays)
        words = [*self.machine.prefix, self.program, artifact, "--program", program]
        words += ["--inputs", inputs, "--outputs", outputs, *options]
        folders = [str(folder) for folder in (drivers and self.drivers, libraries) if folder]
        known = os.environ | environment | {"LD_LIBRARY_PATH": ":".join(folders)}
        known["ASAN_OPTIONS"] = "detect_leaks=0"  # what main allocates lives as long as the process
        done = subprocess.run(words, capture_output=True, text=True, env=known, timeout=100)
        return done, read_tensors(outputs) if outputs.exists() else {}


_BUILT: dict[str, Runner] = {}


def runner_on(name: str, folders: pytest.TempPathFactory) -> Runner:
    """One of MACHINES, built once a session."""
    machine = MACHINES[name]
    if not shutil.which(machine.compiler) or (machine.prefix and not shutil.which(machine.prefix[0])):
        pytest.skip("needs qemu-user-static and gcc-aarch64-linux-gnu")
    if name not in _BUILT:
        _BUILT[name] = Runner(folders.mktemp(name), machine)
    return _BUILT[name]
