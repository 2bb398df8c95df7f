"""One kernel to code: its PrimFunc through two TVM passes to LLVM, C, OpenCL C or CUDA C.

Loads tvm; runs in compile processes only.
"""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path

from edgec.backends import elf
from edgec.backends.base import KernelSpec, Target
from edgec.backends.targets import tvm_target
from edgec.backends.tvm._tvm import IRModule, tirx, tvm
from edgec.backends.tvm.build import FUNCTION
from edgec.backends.tvm.c_source import tidy
from edgec.backends.tvm.gpu.source import cuda_function, opencl_function
from edgec.runtime.abi import Arch


def compile_kernel(spec: KernelSpec, target: Target, symbol: str, emitter: str) -> bytes:
    """An object file that defines the function `FUNCTION`, or the text of `symbol` for a C-source target or a device.

    emitter: name of the module whose `emit(spec, target, symbol)` gives the kernel's PrimFunc.
    """
    machine = tvm.target.Target(tvm_target(target))

    def generate(one: KernelSpec, name: str = symbol) -> tvm.runtime.Module:
        function = importlib.import_module(emitter).emit(one, target, symbol).with_attr("global_symbol", name)
        module = IRModule({symbol: function})
        for step in (tirx.transform.BindTarget(machine), tirx.transform.LowerIntrin()):
            module = step(module)
        return tvm.get_global_func(f"target.build.{machine.kind.name}")(module, machine)

    if target.c_source:
        return tidy(generate(spec).inspect_source(), symbol).encode()
    if target.arch is Arch.CUDA:
        return cuda_function(generate(spec).inspect_source(), symbol).encode()
    if target.arch is Arch.OPENCL:
        return opencl_function(lambda one: generate(one).inspect_source(), spec, symbol).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.o"
        generate(spec, FUNCTION).write_to_file(str(path))
        code = path.read_bytes()
    elf.check_object(code, target.arch, FUNCTION)
    return code
