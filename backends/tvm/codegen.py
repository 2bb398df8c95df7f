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
from edgec.backends.tvm.gpu.source import device_function


def compile_kernel(spec: KernelSpec, target: Target, symbol: str, emitter: str) -> bytes:
    """An object file that defines the function `FUNCTION`, or the text of `symbol` for a C-source target or a device.

    emitter: name of the module whose `emit(spec, target, symbol)` gives the kernel's PrimFunc.
    """
    function = importlib.import_module(emitter).emit(spec, target, symbol)
    machine = tvm.target.Target(tvm_target(target))
    if not target.c_source and not target.arch.is_device:
        function = function.with_attr("global_symbol", FUNCTION)
    module = IRModule({symbol: function})
    for step in (tirx.transform.BindTarget(machine), tirx.transform.LowerIntrin()):
        module = step(module)
    if target.c_source:
        return tidy(tvm.get_global_func("target.build.c")(module, machine).inspect_source(), symbol).encode()
    if target.arch.is_device:
        source = tvm.get_global_func(f"target.build.{machine.kind.name}")(module, machine).inspect_source()
        return device_function(source, symbol, target.arch).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.o"
        tvm.get_global_func("target.build.llvm")(module, machine).write_to_file(str(path))
        code = path.read_bytes()
    elf.check_object(code, target.arch, FUNCTION)
    return code
