"""How often each block of a program's kernels runs, counted under qemu."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from edgec.backends.base import Target
from edgec.backends.runner_binary import runner_binary
from edgec.backends.runners.base import Invocation
from edgec.backends.toolchain import Tool, execute, require
from edgec.graph.types import DType
from edgec.runtime.abi import Arch
from edgec.runtime.format import Program, Slot
from edgec.runtime.layout import read_artifact
from edgec.runtime.tensorfile import write_tensors
from edgec.tools.bench.contenders import draw

# The static one of the same name has no plugins.
_QEMU = Tool(("qemu-aarch64",), ("qemu-user",))
_COMPILER = Tool(("cc", "gcc", "clang"), ("gcc", "libc6-dev"))
_SOURCE = Path(__file__).with_name("block_counts.c")
_MAPPED = re.compile(r"mmap\([^)]*PROT_EXEC[^)]*\) = (0x[0-9a-f]+)")
_TIMEOUT = 1800.0
_RATE = 1e-6


def run_counted(artifact: Path, program: str, target: Target) -> Counter[int]:
    """Runs of each instruction, by its address in the code image, in one call of `program` on drawn data.

    UserError E0402 without qemu-user.
    """
    emulator = require(_QEMU, "count instructions")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plugin, counted, log = folder / "counts.so", folder / "counts", folder / "log"
        execute(
            [require(_COMPILER, "build qemu's plugin"), "-O2", "-shared", "-fPIC", "-o", plugin, _SOURCE], timeout=60
        )
        variant = read_artifact(artifact).variants[0]
        (found,) = [p for p in variant.programs if p.name == program]
        write_tensors(folder / "in", _feeds(found))
        call = Invocation(artifact, program, folder / "in", folder / "out")
        command = [emulator, "-cpu", target.cpu, "-strace", "-D", log, "-plugin", f"{plugin},out={counted}"]
        execute([*command, runner_binary(Arch.AARCH64), *call.arguments(str)], timeout=_TIMEOUT)
        (base,) = (int(address, 16) for address in _MAPPED.findall(log.read_text()))
        runs: Counter[int] = Counter()
        for line in counted.read_text().splitlines():
            address, instructions, entries = line.split()
            start = int(address, 16) - base
            if 0 <= start < len(variant.code):
                runs.update(dict.fromkeys(range(start, start + 4 * int(instructions), 4), int(entries)))
        return runs


def _feeds(program: Program) -> dict[str, np.ndarray]:
    """What is drawn changes no count by much: a small rate keeps weights as they are."""
    fed = [b for b in program.bindings if b.slot in (Slot.INPUT, Slot.SCALAR)]
    return {
        b.name: np.full(b.shape, _RATE, np.float32)
        if b.slot is Slot.SCALAR and b.dtype == "f32"
        else draw(b.shape, DType(b.dtype).numpy, (b.low, b.high) if b.low <= b.high else (0, 1))
        for b in fed
    }
