"""The C library through its header alone: sanitizers, allocation, other machines, linked kernels, size."""

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from library_sources import SOURCES, STRICT
from sample_artifact import HERE, HOST, feeds, sample, variant

from edgec.runtime import load
from edgec.runtime.abi import Arch
from edgec.runtime.layout import write_artifact

STEPS = 20
SIZE_BUDGET = 64 * 1024

needs_qemu = pytest.mark.skipif(
    not shutil.which("qemu-aarch64-static") or not shutil.which("aarch64-linux-gnu-gcc"),
    reason="needs qemu-user-static and gcc-aarch64-linux-gnu",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Artifacts of several machines, and a batch."""
    folder = tmp_path_factory.mktemp("c")
    write_artifact(folder / "host.edge", sample(variant(HOST)))
    write_artifact(folder / "portable.edge", sample(variant(Arch.PORTABLE)))
    batch = feeds(5)
    (folder / "batch").write_bytes(batch["x"].tobytes() + batch["labels"].tobytes())
    return folder


@functools.cache
def expected(folder: Path) -> bytes:
    """What the driver must write, through the Python binding."""
    batch = feeds(5)
    with load(folder / "host.edge", threads=1) as model:
        parts = [model.run({"x": batch["x"]})["y"]]
        parts += [np.float32(model.step(batch, lr=0.05)) for _ in range(STEPS)]
        parts += [model.eval_step(batch)[1]["y"], model.parameters()["w"], model.states()["steps"]]
        return b"".join(part.tobytes() for part in parts)


def build(folder: Path, name: str, *flags: str | Path, compiler: str = "gcc") -> Path:
    command = [compiler, *STRICT, "-pthread", *flags, HERE / "c_driver.c", *SOURCES, "-o", folder / name]
    subprocess.run(command, check=True)
    return folder / name


def drive(folder: Path, driver: Path, artifact: str, threads: int, prefix: tuple[str, ...] = ()) -> None:
    """Runs the driver and compares its results to the bit."""
    result = folder / f"{driver.name}-{threads}.out"
    command = [*prefix, driver, folder / artifact, folder / "batch", result, str(threads), str(STEPS)]
    environment = os.environ | {"UBSAN_OPTIONS": "halt_on_error=1", "TSAN_OPTIONS": "halt_on_error=1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100)
    assert done.returncode == 0, done.stderr
    assert result.read_bytes() == expected(folder)


def test_nothing_is_allocated_while_running(folder):
    """Between the opening of a session and its closing, neither by the allocator nor by malloc."""
    driver = build(folder, "count", "-O2", "-DCOUNT_MALLOC")
    for threads in (1, 2, 4):
        drive(folder, driver, "host.edge", threads)


def test_address_and_undefined_behaviour_sanitizers(folder):
    driver = build(folder, "asan", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    drive(folder, driver, "host.edge", 1)
    drive(folder, driver, "host.edge", 3)


def test_thread_sanitizer(folder):
    driver = build(folder, "tsan", "-O1", "-g", "-fsanitize=thread")
    drive(folder, driver, "host.edge", 4)


def test_linked_kernels(folder):
    """A variant without code takes the application's table: the way of micro-controllers."""
    flags = ["-O2", "-ffp-contract=off", "-DLINKED", "-Wno-cast-function-type", HERE / "sample_kernels.c"]
    drive(folder, build(folder, "linked", *flags), "portable.edge", 2)


@needs_qemu
def test_aarch64(folder):
    """The same bits on the other machine, from a static binary that maps the image by itself."""
    write_artifact(folder / "aarch64.edge", sample(variant(Arch.X86_64), variant(Arch.AARCH64)))
    driver = build(folder, "aarch64", "-O2", "-static", compiler="aarch64-linux-gnu-gcc")
    for threads in (1, 3):
        drive(folder, driver, "aarch64.edge", threads, ("qemu-aarch64-static", "-cpu", "cortex-a72"))


@pytest.mark.parametrize("compiler", ["clang", "clang-14"])
def test_clang_has_nothing_to_say(folder, compiler):
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    subprocess.run([compiler, *STRICT, "-Wpedantic", "-fsyntax-only", *SOURCES], check=True)


@pytest.mark.skipif(not shutil.which("aarch64-linux-gnu-gcc"), reason="needs gcc-aarch64-linux-gnu")
def test_size(folder, capsys):
    """.text and .rodata of the stripped library on aarch64, with the drivers of GPUs."""
    flags = ["-Os", "-fPIC", "-fvisibility=hidden", "-ffunction-sections", "-shared", "-s", "-Wl,--gc-sections"]
    library = folder / "libedgec.so"
    subprocess.run(["aarch64-linux-gnu-gcc", *STRICT, *flags, *SOURCES, "-o", library], check=True)
    table = subprocess.run(["aarch64-linux-gnu-size", "-A", library], check=True, capture_output=True, text=True).stdout
    sizes = {
        words[0]: int(words[1])
        for words in map(str.split, table.splitlines())
        if len(words) == 3 and words[1].isdigit()
    }
    code = sizes[".text"] + sizes[".rodata"]
    with capsys.disabled():
        sys.stdout.write(f"\nedgec on aarch64: {code} bytes of .text and .rodata, of {SIZE_BUDGET} allowed\n")
    assert code <= SIZE_BUDGET
    assert not any(sizes.get(section, 0) > 64 for section in (".data", ".bss")), "no globals"
