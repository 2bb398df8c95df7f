"""The outside programs edgec calls: which a target needs, which are here, and the command that installs the rest.

Programs are run with argument vectors and time limits, never through a shell.
"""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgec.backends import nvrtc
from edgec.backends.base import Target, TargetStatus
from edgec.backends.targets import all_targets, host_arch
from edgec.graph.errors import InternalError, UserError
from edgec.runtime.abi import Arch

TVM_REQUIREMENT = "apache-tvm==0.27.0.post1"


@dataclass(frozen=True)
class Tool:
    """A program under any of its names, and the Debian packages that bring it."""

    names: tuple[str, ...]
    packages: tuple[str, ...]

    def path(self) -> Path | None:
        for name in self.names:
            found = shutil.which(name)
            if found:
                return Path(found)
        return None


@dataclass(frozen=True)
class Toolchain:
    """For one architecture: a linker for kernels, a C compiler for `edgec-run`, an emulator where code is foreign."""

    linker: Tool | None
    compiler: Tool
    emulator: Tool | None = None


_CROSS = {
    Arch.X86_64: Toolchain(
        linker=Tool(("x86_64-linux-gnu-ld",), ("binutils-x86-64-linux-gnu",)),
        compiler=Tool(("x86_64-linux-gnu-gcc",), ("gcc-x86-64-linux-gnu",)),
        emulator=Tool(("qemu-x86_64-static", "qemu-x86_64"), ("qemu-user-static",)),
    ),
    Arch.AARCH64: Toolchain(
        linker=Tool(("aarch64-linux-gnu-ld",), ("binutils-aarch64-linux-gnu",)),
        compiler=Tool(("aarch64-linux-gnu-gcc",), ("gcc-aarch64-linux-gnu",)),
        emulator=Tool(("qemu-aarch64-static", "qemu-aarch64"), ("qemu-user-static",)),
    ),
    Arch.ARM: Toolchain(
        linker=None,
        compiler=Tool(("arm-none-eabi-gcc",), ("gcc-arm-none-eabi", "libnewlib-arm-none-eabi")),
        emulator=Tool(("qemu-system-arm",), ("qemu-system-arm",)),
    ),
    Arch.RISCV32: Toolchain(
        linker=None,
        compiler=Tool(("riscv64-unknown-elf-gcc",), ("gcc-riscv64-unknown-elf", "picolibc-riscv64-unknown-elf")),
        emulator=Tool(("qemu-system-riscv32",), ("qemu-system-misc",)),
    ),
}
# A device's code needs no linker here; its host's `edgec-run` is built with the tools of the host.
_DEVICE = Toolchain(linker=None, compiler=Tool(("cc", "gcc", "clang"), ("gcc", "libc6-dev")))
_DRIVERS = {
    Arch.OPENCL: ("libOpenCL.so.1", "to run it here without a GPU: apt-get install ocl-icd-libopencl1 pocl-opencl-icd"),
    Arch.CUDA: ("libcuda.so.1", "to run it here: a GPU of NVIDIA's with its driver"),
}
_NATIVE = Toolchain(
    linker=Tool(("ld",), ("binutils",)),
    compiler=Tool(("cc", "gcc", "clang"), ("gcc", "libc6-dev")),
)


def toolchain(arch: Arch) -> Toolchain:
    """The programs for code of `arch` on this machine."""
    if arch.is_device:
        return _DEVICE
    return _NATIVE if arch is host_arch() else _CROSS[arch]


def require(tool: Tool, purpose: str) -> Path:
    """The program's path. UserError E0402 with the command that installs it."""
    path = tool.path()
    if path is None:
        raise UserError("E0402", f"`{tool.names[0]}` is needed to {purpose}", hint=apt_command(tool.packages))
    return path


def apt_command(packages: Sequence[str]) -> str:
    return "apt-get install " + " ".join(packages)


class ToolFailure(InternalError):
    """An outside program failed; its last words are the message."""


def execute(
    argv: Sequence[str | Path],
    *,
    timeout: float,
    cwd: Path | None = None,
    stdin: bytes | None = None,
    success: tuple[int, ...] = (0,),
) -> bytes:
    """Run a program and return its stdout. ToolFailure if its exit status is none of `success`, or it takes too long.

    timeout: seconds, after which it is killed.
    """
    arguments = [str(word) for word in argv]
    name = Path(arguments[0]).name
    try:
        done = subprocess.run(
            arguments,
            cwd=cwd,
            timeout=timeout,
            input=stdin or b"",
            capture_output=True,
        )
    except subprocess.TimeoutExpired as error:
        raise ToolFailure(f"`{name}` did not finish within {timeout:g} s") from error
    if done.returncode not in success:
        words = done.stderr.decode(errors="replace").strip()[-2000:]
        raise ToolFailure(f"`{name}` failed with status {done.returncode}:\n{words}")
    return done.stdout


def target_status(target: Target) -> TargetStatus:
    """What is missing for compiling to `target`; where its code can run here stands in `runs_on` and `notes`.

    The C of a target without machine code is compiled by whoever links it: emitting needs no compiler.
    """
    tools = toolchain(target.arch)
    needed = [] if tools.linker is None else [tools.linker]
    absent = [tool for tool in needed if tool.path() is None]
    missing = [tool.names[0] for tool in absent]
    install = [apt_command([package for tool in absent for package in tool.packages])] if absent else []
    if target.arch is Arch.CUDA and not nvrtc.installed():
        missing.append("NVRTC")
        install.append(f"pip install '{nvrtc.REQUIREMENT}'")
    if importlib.util.find_spec("tvm") is None:
        missing.append("apache-tvm")
        install.append(f"pip install {TVM_REQUIREMENT}")
    runs_on, notes = _execution(target, tools)
    return TargetStatus(target, tuple(missing), " && ".join(install), runs_on, notes)


def _execution(target: Target, tools: Toolchain) -> tuple[str, tuple[str, ...]]:
    if target.arch.is_device:
        library, advice = _DRIVERS[target.arch]
        return ("this machine", ()) if _loads(library) else ("a device only", (advice,))
    if tools.emulator is None:
        return "this machine", ()
    emulator = tools.emulator.path()
    helpers = [tool for tool in (tools.compiler, tools.emulator) if tool.path() is None]
    notes = (f"to run it here: {apt_command([p for tool in helpers for p in tool.packages])}",) if helpers else ()
    return (emulator.name if emulator else "a device only"), notes


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def all_statuses() -> tuple[TargetStatus, ...]:
    return tuple(target_status(target) for target in all_targets())
