"""Everything that can run a module, behind one interface: interpreters of graphs and plans, and machines.

`INTERPRETERS` compute with the ops' numpy references and must give their results to the bit; `MACHINES` run compiled
kernels in the C runtime and in nothing else.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from linked import load_linked
from subject import Subject

from edgec.backends.base import Backend, Target
from edgec.backends.runners.base import Invocation
from edgec.backends.runners.direct import qemu_runner
from edgec.backends.targets import find_target
from edgec.backends.tvm.backend import TvmBackend
from edgec.compiler.compile import CompileResult, lower_module
from edgec.compiler.passbase import Phase
from edgec.graph import interp
from edgec.graph.ir import Module
from edgec.runtime import Model, load
from edgec.runtime.abi import Arch
from edgec.runtime.format import Binding, Opcode, Program, Slot
from edgec.runtime.layout import write_artifact
from edgec.runtime.tensorfile import read_tensors, write_tensors
from edgec.tools.testing.plan_interp import PlanInterpreter
from edgec.tools.testing.reference_backend import SCALAR_TARGET, VECTOR_TARGET, ReferenceBackend

Feeds = Mapping[str, np.ndarray]

_RUN_TIMEOUT = 600.0  # seconds, for one call under emulation


@dataclass(frozen=True)
class Ran:
    """Outputs of the last step by name; f32 losses of all steps, empty where the program has no loss.

    kernels: symbols of the compiled functions that ran, call by call; none for an interpreter.
    """

    outputs: dict[str, np.ndarray]
    losses: np.ndarray
    kernels: tuple[str, ...] = ()


class Session(Protocol):
    """A module, ready to run. What a program updates is seen by whatever runs later."""

    def run(self, program: str, steps: Sequence[Feeds]) -> Ran:
        """Run a program once for each of `steps`: inputs and scalars by name."""


@dataclass(frozen=True)
class Executor:
    """`start` takes a subject, an empty folder of its own, and a number of threads."""

    name: str
    start: Callable[[Subject, Path, int], Session]

    def open(self, subject: Subject, folder: Path, threads: int = 2) -> Session:
        return self.start(subject, folder, threads)

    def __str__(self) -> str:
        return self.name


# ---- Interpreters. ----


class Interpreted:
    """The graph, node by node."""

    def __init__(self, module: Module):
        self._programs = module.programs
        self._values: dict[str, np.ndarray] = {}

    def run(self, program: str, steps: Sequence[Feeds]) -> Ran:
        graph, losses, outputs = self._programs[program], [], {}
        for feeds in steps:
            known = {name: array for name, array in self._values.items() if name in graph.leaves}
            results = interp.run(graph, {**feeds, **known})
            self._values |= results.updates
            outputs = dict(results.outputs)
            if graph.loss is not None:
                losses.append(outputs.pop(graph.loss))
        return Ran(outputs, np.array(losses, np.float32))


class Planned:
    """The memory plan and the packed tables, with the references as kernels."""

    def __init__(self, result: CompileResult):
        self._plan = PlanInterpreter(result.artifact, result.images[0])

    def run(self, program: str, steps: Sequence[Feeds]) -> Ran:
        losses, outputs = [], {}
        names = [b.name for b in self._plan.program(program).bindings if b.slot is Slot.LOSS]
        for feeds in steps:
            outputs = self._plan.run(program, feeds)
            losses += [outputs.pop(name) for name in names]
        return Ran(outputs, np.array(losses, np.float32))


def _interpret(phase: Phase | None, subject: Subject, folder: Path, threads: int) -> Session:
    return Interpreted(subject.after(phase))


def _interpret_plan(target: Target, subject: Subject, folder: Path, threads: int) -> Session:
    return Planned(_lower(subject, ReferenceBackend(target)))


# ---- Machines. ----


class InProcess:
    """The C runtime in this process."""

    def __init__(self, model: Model, threads: int):
        self._model = model
        self._threads = threads

    def run(self, program: str, steps: Sequence[Feeds]) -> Ran:
        losses, outputs = [], {}
        with self._model.session(self._threads) as session, session.profile() as calls:
            for feeds in steps:
                loss, outputs = session.run(program, feeds)
                losses += [] if loss is None else [loss]
        kernels = tuple(call.kernel for call in calls if call.kernel not in ("guard", "zero"))
        return Ran(outputs, np.array(losses, np.float32), kernels)


class Emulated:
    """`edgec-run` under qemu, a process for each call; a checkpoint carries what training changed to the next."""

    def __init__(self, result: CompileResult, folder: Path, threads: int):
        (schedules,) = result.schedules
        self._threads = threads
        self._variant = result.artifact.variants[0]
        self._runner = qemu_runner(schedules.backend.target)
        self._artifact = folder / "a.edge"
        self._inputs, self._outputs = folder / "in.tensors", folder / "out.tensors"
        self._checkpoint = folder / "c.edgeckpt"
        write_artifact(self._artifact, result.artifact)

    def run(self, program: str, steps: Sequence[Feeds]) -> Ran:
        (found,) = [p for p in self._variant.programs if p.name == program]
        write_tensors(self._inputs, {b.name: _side_by_side(b, steps) for b in found.bindings if _is_fed(b)})
        has_loss = any(b.slot is Slot.LOSS for b in found.bindings)
        call = Invocation(
            self._artifact,
            program,
            self._inputs,
            self._outputs,
            steps=len(steps),
            load_checkpoint=self._checkpoint if self._checkpoint.exists() else None,
            threads=self._threads,
            save_checkpoint=self._checkpoint if has_loss else None,
        )
        self._runner.run(call, timeout=_RUN_TIMEOUT)
        outputs = {name: array.copy() for name, array in read_tensors(self._outputs).items()}
        losses = outputs.pop("losses", np.empty(0, np.float32))
        return Ran(outputs, losses, self._kernels(found))

    def _kernels(self, program: Program) -> tuple[str, ...]:
        """edgec-run has executed the whole program, or it would have failed: it knows nothing but these calls."""
        calls = (call for call in program.calls if call.opcode is Opcode.KERNEL)
        return tuple(self._variant.kernels[call.kernel].name for call in calls)


def _is_fed(binding: Binding) -> bool:
    return binding.slot in (Slot.INPUT, Slot.SCALAR)


def _side_by_side(binding: Binding, steps: Sequence[Feeds]) -> np.ndarray:
    """All steps' shares of an input along its first axis, as edgec-run wants them; a scalar is the same in all."""
    arrays = [np.asarray(feeds[binding.name]) for feeds in steps]
    if binding.shape and len(arrays) > 1:
        return np.concatenate(arrays)
    assert all(np.array_equal(array, arrays[0]) for array in arrays), f"scalar {binding.name} changes between steps"
    return arrays[0]


def _lower(subject: Subject, backend: Backend) -> CompileResult:
    result = lower_module(subject.lowered(), [backend], subject.options)
    assert result is not None  # nothing asked to stop early
    return result


def _run_here(target: Target, subject: Subject, folder: Path, threads: int) -> Session:
    write_artifact(folder / "a.edge", _lower(subject, TvmBackend(target)).artifact)
    return InProcess(load(folder / "a.edge", threads=1, target=target.name), threads)


def _run_linked(target: Target, subject: Subject, folder: Path, threads: int) -> Session:
    return InProcess(load_linked(_lower(subject, TvmBackend(target)), folder), threads)


def _run_emulated(target: Target, subject: Subject, folder: Path, threads: int) -> Session:
    if shutil.which("qemu-aarch64-static") is None:
        pytest.skip("qemu-aarch64-static is missing: apt-get install qemu-user-static")
    return Emulated(_lower(subject, TvmBackend(target)), folder, threads)


# Every kernel without a schedule: what the scheduled ones are measured against, through LLVM and through C.
GENERIC = dataclasses.replace(find_target("x86-64-v3"), name="generic", lanes=1)
C_SOURCE = Target(name="c-source", arch=Arch.PORTABLE, triple="", cpu="any", c_source=True)

AS_IMPORTED = Executor("interpreter", partial(_interpret, None))
SPECIALISED = Executor("after-specialise", partial(_interpret, Phase.SPECIALISE))
DIFFERENTIATED = Executor("after-differentiate", partial(_interpret, Phase.DIFFERENTIATE))
SPARSIFIED = Executor("after-sparsify", partial(_interpret, Phase.SPARSIFY))
PLANS = (
    Executor("plan-row-major", partial(_interpret_plan, SCALAR_TARGET)),
    Executor("plan-channels-last", partial(_interpret_plan, VECTOR_TARGET)),
)
X86 = Executor("x86", partial(_run_here, find_target("x86")))
X86_V3 = Executor("x86-64-v3", partial(_run_here, find_target("x86-64-v3")))
OPENCL = Executor("opencl", partial(_run_here, find_target("mobile-gpu")))
RPI4 = Executor("rpi4", partial(_run_emulated, find_target("rpi4")))
RPI5 = Executor("rpi5", partial(_run_emulated, find_target("rpi5")))

INTERPRETERS = (AS_IMPORTED, *PLANS)
MACHINES = (
    X86,
    X86_V3,
    Executor("generic", partial(_run_here, GENERIC)),
    Executor("c-source", partial(_run_linked, C_SOURCE)),
    OPENCL,
    RPI4,
    RPI5,
)
