"""Kernels as C, compiled by this machine's compiler and handed to the C runtime as linked ones: no code image."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgec.backends.targets import c_flags, host_arch
from edgec.backends.toolchain import execute, require, toolchain
from edgec.compiler.compile import CompileResult
from edgec.runtime import Model
from edgec.runtime.abi import BUFFER_ALIGNMENT
from edgec.runtime.layout import artifact_bytes
from edgec.runtime.library import Options, check, library
from edgec.runtime.session import ModelHandle

_TABLE = """
typedef struct { const char *name; void (*function)(void); } kernel;
extern const kernel edgec_kernels[];
const kernel edgec_kernels[] = {
%s};
"""
_TIMEOUT = 300.0


class _LinkedHandle(ModelHandle):
    """Keeps the memory that the model is used in, and the code that it calls, for as long as it is open."""

    def __init__(self, pointer: ctypes.c_void_p, *kept: object):
        super().__init__(pointer)
        self._kept = kept


def _aligned(data: bytes) -> np.ndarray:
    """A copy where an artifact in memory may begin."""
    memory = np.empty(len(data) + BUFFER_ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % BUFFER_ALIGNMENT
    memory[start : start + len(data)] = np.frombuffer(data, np.uint8)
    return memory[start : start + len(data)]


def load_linked(result: CompileResult, folder: Path) -> Model:
    """Open the one variant of a result for a target with `c_source`; its kernels become a library in `folder`."""
    (schedules,), (image,), (variant,) = result.schedules, result.images, result.artifact.variants
    order = [image.names[spec] for spec, _ in sorted(image.entries.items(), key=lambda entry: entry[1])]
    rows = "".join(f'    {{"{name}", (void (*)(void)){name}}},\n' for name in order)
    (folder / "kernels.c").write_bytes(image.data + (_TABLE % rows).encode())
    compiler = require(toolchain(host_arch()).compiler, "compile kernels for this machine")
    flags = (*c_flags(schedules.backend.target), "-Wall", "-Werror", "-shared", "-fPIC")
    execute([compiler, *flags, folder / "kernels.c", "-o", folder / "kernels.so"], timeout=_TIMEOUT)
    code = ctypes.CDLL(str(folder / "kernels.so"))
    artifact = replace(result.artifact, variants=(replace(variant, code=b""),))
    memory = _aligned(artifact_bytes(artifact))
    table = ctypes.addressof(ctypes.c_char.in_dll(code, "edgec_kernels"))
    options, pointer = Options(kernels=table, kernel_count=len(order)), ctypes.c_void_p()
    status = library().edgec_model_open_memory(
        memory.ctypes.data, memory.nbytes, ctypes.byref(options), ctypes.byref(pointer)
    )
    check(status, where=str(folder))
    return Model(_LinkedHandle(pointer, memory, code), threads=1)
