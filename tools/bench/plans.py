"""One way to compile a case of a benchmark: what is planned, and its artifact where kernels are wanted too."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgec.backends.targets import find_target
from edgec.backends.tvm.backend import TvmBackend
from edgec.compiler.budget import counted_bytes, schedule_target
from edgec.compiler.compile import lower_module
from edgec.compiler.passbase import Options, Trace
from edgec.compiler.pipeline import transform_module
from edgec.compiler.report import ProgramFigures, program_figures
from edgec.graph.errors import UserError
from edgec.graph.ir import Module
from edgec.runtime.layout import write_artifact


@dataclass(frozen=True)
class Plan:
    """Of `train`, or of `infer` where nothing is trained. `counted`: bytes as a memory budget counts them."""

    figures: ProgramFigures
    counted: int

    @property
    def arena(self) -> int:
        return self.figures.arena_bytes

    @property
    def again(self) -> float:
        """Multiply-adds that are done twice, as a share of those that are needed once."""
        return self.figures.recomputed_macs / self.figures.macs

    def budget(self, part: float) -> int:
        """The memory budget that leaves so large a part of this arena."""
        return self.counted - int((1 - part) * self.arena)


def plan(module: Module, options: Options, out: Path | None = None) -> Plan:
    """`module`, as imported and changed in place, planned for this machine; compiled too where it goes to a file."""
    transform_module(module, options)
    backend = TvmBackend(find_target("x86"))
    if out is None:
        schedules = schedule_target(module, backend, options, Trace())
    else:
        result = lower_module(module, [backend], options)
        (schedules,) = result.schedules
        write_artifact(out, result.artifact)
    program = "train" if options.train is not None else "infer"
    return Plan(program_figures(module, program, [schedules.programs[program]]), counted_bytes(schedules))


def least_bytes(error: UserError) -> int:
    """Of a budget that was refused (E0405): the least that would have been enough, as a budget counts."""
    return int(re.search(r"at least ([\d,]+)", error.message)[1].replace(",", ""))


def contender(artifact: Path, program: str = "train") -> dict:
    """For `compare`: one thread, and rates that leave thousands of steps finite."""
    return {"kind": "edgec", "artifact": str(artifact), "threads": 1, "program": program, "lr": 1e-6}
