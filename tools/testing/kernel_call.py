"""Compile one kernel or one lowering for the host and run it on numpy arrays, with guards around every buffer. Those
for CUDA run on fibers (`cuda_on_host.h`).

For tests and micro-benchmarks of code generation: no cache, no linker rules, no runtime. Each array is copied
between two bands of NaN (or of a rare integer); a kernel that writes outside its arguments, or into one it
declared READ, fails here.
"""

from __future__ import annotations

import ctypes
import itertools
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgec.backends import elf
from edgec.backends.base import KernelSpec, Lowering, Target, Workspace
from edgec.backends.tvm import codegen
from edgec.backends.tvm.build import FUNCTION
from edgec.graph.ir import Value
from edgec.runtime.abi import Access, Arch

_GUARD = 64  # elements on each side
_POINTER = re.compile(r"(\w+)\* __restrict__ p\d+")
_counter = itertools.count()
_compiled: dict[tuple[KernelSpec, Target], Kernel] = {}


def _on_host(spec: KernelSpec, text: str) -> str:
    """CUDA C of a kernel as C++ of `kernel(pointers..., lo, hi)`, whose tasks are work groups."""
    names = [f"p{i}" for i in range(len(spec.arguments))]
    parameters = ", ".join(f"void *{name}" for name in names)
    typed = ", ".join(f"({kind} *){name}" for kind, name in zip(_POINTER.findall(text), names, strict=True))
    text = text.replace(" kernel(", " kernel_of_item(").replace("__shared__ alignas(64)", "__shared__")
    call = f"run_groups(lo, hi, {spec.threads}, [&] {{ kernel_of_item({typed}); }});"
    return f'#include "cuda_on_host.h"\n{text}\nextern "C" void kernel({parameters}, int lo, int hi) {{ {call} }}\n'


def compile_object(spec: KernelSpec, target: Target, path: Path) -> Path:
    """The object file of one kernel, exported as `kernel`; refused if it needs a symbol or writable data."""
    code = codegen.compile_kernel(spec, target, "kernel", "edgec.backends.tvm.emitters")
    path.write_bytes(code if target.arch.is_device else elf.rename_symbol(code, FUNCTION, "kernel"))
    return path


class Kernel:
    """A kernel in this process: `kernel(arrays..., lo=, hi=)` on contiguous arrays of the declared types,
    unguarded.
    """

    def __init__(self, spec: KernelSpec, target: Target):
        self.spec = spec
        with tempfile.TemporaryDirectory() as folder:
            # A library that is opened twice under one name is returned from the first time.
            library = Path(folder) / f"kernel{next(_counter)}.so"
            if target.arch is Arch.CUDA:
                text = Path(folder) / "kernel.cc"
                text.write_text(_on_host(spec, compile_object(spec, target, Path(folder) / "kernel.cu").read_text()))
                build = ["g++", "-O1", "-ffp-contract=off", "-fPIC", f"-I{Path(__file__).parent}", str(text)]
            else:
                build = ["gcc", str(compile_object(spec, target, Path(folder) / "kernel.o"))]
            subprocess.run([*build, "-shared", "-o", str(library)], check=True)
            self.function = ctypes.CDLL(str(library)).kernel
        self.function.restype = None

    def __call__(self, *arrays: np.ndarray, lo: int = 0, hi: int = 1) -> None:
        arguments = self.spec.arguments
        assert len(arrays) == len(arguments), f"{len(arrays)} arrays for {len(arguments)} arguments"
        for array, argument in zip(arrays, arguments, strict=True):
            assert array.dtype == argument.dtype.numpy and array.flags.c_contiguous, (array.dtype, argument)
            assert array.size >= argument.elements, (array.size, argument)
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in arrays]
        self.function(*pointers, ctypes.c_int32(lo), ctypes.c_int32(hi))


def compile_kernel(spec: KernelSpec, target: Target) -> Kernel:
    """The kernel of a spec, compiled once in this process."""
    key = (spec, target)
    if key not in _compiled:
        _compiled[key] = Kernel(spec, target)
    return _compiled[key]


def run_kernel(spec: KernelSpec, target: Target, arrays: Sequence[np.ndarray], tasks: int) -> None:
    """Run all tasks in place on `arrays`, one task per call and the last task first: order must not matter."""
    guarded = [_Guarded(array) for array in arrays]
    kernel = compile_kernel(spec, target)
    for task in reversed(range(tasks)):
        kernel(*(g.inside for g in guarded), lo=task, hi=task + 1)
    for index, (g, array, argument) in enumerate(zip(guarded, arrays, spec.arguments, strict=True)):
        g.check(f"{spec.stem}, argument {index}")
        if argument.access is Access.READ:
            assert g.inside.tobytes() == array.tobytes(), f"{spec.stem} writes its READ argument {index}"
        array[...] = g.inside


def run_lowering(lowering: Lowering, arrays: Mapping[Value, np.ndarray], target: Target) -> None:
    """Run the calls of a lowering in place on the stored (flat) arrays of its values; workspaces start as garbage."""
    memory = {w.index: np.full(-(-w.bytes // 4), np.nan, np.float32) for w in lowering.workspaces}
    for call in lowering.calls:
        bound = []
        for operand, argument in zip(call.operands, call.spec.arguments, strict=True):
            if isinstance(operand, Workspace):
                bound.append(memory[operand.index].view(argument.dtype.numpy)[: argument.elements])
            else:
                assert arrays[operand].size == argument.elements, (operand, argument)
                bound.append(arrays[operand])
        run_kernel(call.spec, target, bound, call.tasks)


def disassemble(spec: KernelSpec, target: Target) -> str:
    """The machine code of a kernel as objdump prints it."""
    tool = {Arch.X86_64: "objdump", Arch.AARCH64: "aarch64-linux-gnu-objdump", Arch.ARM: "arm-none-eabi-objdump"}[
        target.arch
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = compile_object(spec, target, Path(folder) / "kernel.o")
        command = [tool, "-d", "--no-show-raw-insn", str(path)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class _Guarded:
    """A 64-byte aligned copy of an array between two bands of a value that no kernel writes by chance."""

    def __init__(self, array: np.ndarray):
        assert array.flags.c_contiguous
        self._band = np.full(_GUARD, np.nan if array.dtype.kind == "f" else 77, array.dtype)
        size = array.nbytes + 2 * self._band.nbytes
        raw = np.empty(size + 64, np.uint8)
        start = -(raw.ctypes.data + self._band.nbytes) % 64
        self._all = raw[start : start + size].view(array.dtype)
        self._all[:_GUARD] = self._all[self._all.size - _GUARD :] = self._band
        self.inside = self._all[_GUARD : self._all.size - _GUARD].reshape(array.shape)
        self.inside[...] = array

    def check(self, what: str) -> None:
        before, after = self._all[:_GUARD], self._all[self._all.size - _GUARD :]
        assert before.tobytes() == self._band.tobytes(), f"{what}: written before its start"
        assert after.tobytes() == self._band.tobytes(), f"{what}: written behind its end"
