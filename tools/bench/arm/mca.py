"""Cycles of blocks by `llvm-mca`, which runs them through a scheduler's model of a CPU.

A block runs on end, with every load in the nearest cache: what the pipelines take, and neither caches nor branches.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgec.backends.toolchain import Tool, execute, require
from edgec.tools.bench.arm.code import Block, Instruction

_ANY = Tool(("llvm-mca", "llvm-mca-14", "llvm-mca-19"), ("llvm",))
_RECENT = Tool(("llvm-mca-19", "llvm-mca-18", "llvm-mca-17", "llvm-mca-16"), ("llvm-19",))
# CPU: LLVM's model, and who has it. Its cortex-a72 is a model of the cortex-a57, whose pipelines it shares; its
# cortex-a76 is the same one, so that the neoverse-n1, that core for servers, stands in: modelled since LLVM 16.
MODELS = {"cortex-a72": ("cortex-a72", _ANY), "cortex-a76": ("neoverse-n1", _RECENT)}
_ITERATIONS = 16
_CYCLES = re.compile(r"^Total Cycles:\s+(\d+)$", re.MULTILINE)
_TIMEOUT = 600.0


def cycles(blocks: Sequence[Block], cpu: str) -> list[float]:
    """Of one run of each block, in the middle of many. `cpu`: one of `MODELS`. UserError E0402 without llvm-mca."""
    return [
        max((far - near) / _ITERATIONS, 0.0)
        for near, far in zip(_total(blocks, cpu, _ITERATIONS), _total(blocks, cpu, 2 * _ITERATIONS), strict=True)
    ]


def peak(cpu: str) -> float:
    """Multiply-adds of f32 that the model of a CPU can do in a cycle."""
    alone = Block(tuple(Instruction(0, "fmla", f"v{n}.4s, v30.4s, v31.4s") for n in range(24)))
    return alone.mix.macs / cycles([alone], cpu)[0]


def _total(blocks: Sequence[Block], cpu: str, iterations: int) -> list[int]:
    model, tool = MODELS[cpu]
    program = require(tool, "model the pipelines of an Arm core")
    text = "".join(
        f"# LLVM-MCA-BEGIN b{n}\n" + "\n".join(map(_assembly, block.instructions)) + f"\n# LLVM-MCA-END b{n}\n"
        for n, block in enumerate(blocks)
    )
    options = [
        "-mtriple=aarch64",
        f"-mcpu={model}",
        f"-iterations={iterations}",
        "-all-views=false",
        "-summary-view",
    ]
    report = execute([program, *options], timeout=_TIMEOUT, stdin=text.encode()).decode()
    return [int(count) for count in _CYCLES.findall(report)]


def _assembly(instruction: Instruction) -> str:
    """As the assembler takes it back: addresses of branches become distances."""
    if instruction.target is None:
        return str(instruction) if instruction.mnemonic not in ("adr", "adrp") else "mov x0, #1"
    return f"{instruction.mnemonic}\t{re.sub(r'(0x)?[0-9a-f]+$', '#64', instruction.operands)}"
