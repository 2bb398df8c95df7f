"""`edgec-run`: the runtime as one program for an architecture, built from its C sources once and kept.

A static program runs on any Linux or Android of its architecture, and can never open a GPU's driver; what is to drive a
GPU is linked to the C library that the driver is linked to.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import os
import tempfile
from pathlib import Path

from edgec.backends.cache import cache_folder
from edgec.backends.toolchain import execute, require, toolchain
from edgec.graph.errors import InternalError
from edgec.runtime.abi import Arch

_FLAGS = ("-std=c11", "-O2", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-ffunction-sections", "-pthread")
_STATIC = ("-static", "-DEDGEC_DEVICES=0")
_LINK_FLAGS = ("-Wl,--gc-sections", "-s", "-ldl")
_MAIN = "edgec_run.c"
_TIMEOUT = 300.0


def csrc_folder() -> Path:
    """Where the runtime's C sources lie, in the tree as in an installed wheel."""
    return Path(str(importlib.resources.files("edgec.runtime"))) / "csrc"


def runner_binary(arch: Arch) -> Path:
    """The path of the static `edgec-run` for `arch`. UserError E0402 without a C compiler for it."""
    return _built(arch, "edgec-run", (*_FLAGS, *_STATIC))


def device_runner_binary(arch: Arch) -> Path:
    """The same for a program that drives GPUs, on processors of `arch`."""
    return _built(arch, "edgec-run-gpu", _FLAGS)


def _built(arch: Arch, name: str, flags: tuple[str, ...]) -> Path:
    compiler = require(toolchain(arch).compiler, "build edgec-run")
    folder = csrc_folder()
    sources = sorted(path.name for path in folder.glob("*.c"))
    if _MAIN not in sources:
        raise InternalError(f"{_MAIN} is not among the runtime's C sources")
    digest = hashlib.sha256(repr((str(compiler), compiler.stat().st_mtime_ns, flags, _LINK_FLAGS)).encode())
    for path in sorted(folder.glob("*.[ch]")):
        digest.update(f"{path.name}\0".encode() + path.read_bytes())
    shelf = cache_folder() / "run"
    binary = shelf / f"{name}-{arch.name.lower()}-{digest.hexdigest()[:16]}"
    if not binary.exists():
        shelf.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=shelf, prefix=".new-") as new:
            made = Path(new) / "edgec-run"
            execute([compiler, *flags, "-o", made, *sources, *_LINK_FLAGS], timeout=_TIMEOUT, cwd=folder)
            os.replace(made, binary)
    return binary
