"""Arrays in and out of a run of `edgec-run`, wherever that is: on this machine, under qemu, over ssh or adb."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgec.backends.base import Target
from edgec.backends.runners.base import Invocation
from edgec.backends.runners.choose import choose_runner
from edgec.backends.targets import find_target
from edgec.graph.errors import UserError
from edgec.runtime import TensorInfo
from edgec.runtime.abi import Arch
from edgec.runtime.dtypes import numpy_dtype
from edgec.runtime.format import Binding, Slot
from edgec.runtime.layout import read_artifact
from edgec.runtime.signature import cut_to_counts
from edgec.runtime.tensorfile import read_tensors, write_tensors

_LOSSES = "losses"  # the array that `edgec-run` adds for a program with a loss


@dataclass(frozen=True)
class DeviceRun:
    """What came back. `outputs` are those of the last step, `losses` f32[steps] or None; `where` is for people."""

    outputs: dict[str, np.ndarray]
    losses: np.ndarray | None
    profile: dict
    where: str


def run_on_device(
    device: str,
    artifact: Path,
    program: str,
    feeds: Mapping[str, np.ndarray],
    *,
    target: str | None = None,
    steps: int = 1,
    threads: int = 1,
    load_checkpoint: Path | None = None,
    save_checkpoint: Path | None = None,
    timeout: float = 3600.0,
) -> DeviceRun:
    """Run `steps` steps of a program on `device` (see `choose_runner`).

    feeds: inputs and scalars by name; with several steps, an array either serves all of them or holds the shares of the
    steps side by side along its first axis. A scalar with bounds that is not given takes its greatest value, as in
    Python. target: which variant runs, if it is not clear from the device.
    UserError and RuntimeFailure with the code that the device gave, E0504 if no variant fits, E0608 if the run failed.
    """
    runner = choose_runner(device, choose_variant(artifact, device, target))
    with tempfile.TemporaryDirectory(prefix="edgec-run-") as name:
        folder = Path(name)
        call = Invocation(
            artifact,
            program,
            folder / "in.tensors",
            folder / "out.tensors",
            steps=steps,
            threads=threads,
            profile=folder / "profile.json",
            load_checkpoint=load_checkpoint,
            save_checkpoint=save_checkpoint,
        )
        scalars = [info for info in inputs_of(artifact, program)[1] if info.bounds is not None]
        write_tensors(call.inputs, {s.name: np.array(s.bounds[1], s.dtype) for s in scalars} | dict(feeds))
        runner.run(call, timeout=timeout)
        # Copies: the arrays that the file gives are read only.
        outputs = {name: array.copy() for name, array in read_tensors(call.outputs).items()}
        outputs = cut_to_counts(outputs, _infos(artifact, program, Slot.OUTPUT))
        profile = json.loads(call.profile.read_text())
    losses = outputs.pop(_LOSSES, None)
    return DeviceRun(outputs, losses, profile, runner.description)


def inputs_of(artifact: Path, program: str) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Inputs and scalars of a program, read off the file: the artifact need not run here. UserError E0606."""
    return _infos(artifact, program, Slot.INPUT), _infos(artifact, program, Slot.SCALAR)


def _infos(artifact: Path, program: str, slot: Slot) -> tuple[TensorInfo, ...]:
    programs = {found.name: found for found in read_artifact(artifact).variants[0].programs}
    if program not in programs:
        have = ", ".join(f"`{name}`" for name in programs)
        hint = "`edgec compile --train` adds `train` and `eval`"
        message = f"the artifact has no program `{program}`, only {have}"
        raise UserError("E0606", message, where=str(artifact), hint=hint)
    bindings = programs[program].bindings
    return tuple(_tensor_info(binding) for binding in bindings if binding.slot == slot)


def _tensor_info(binding: Binding) -> TensorInfo:
    bounds = (binding.low, binding.high) if binding.high >= binding.low else None
    return TensorInfo(
        binding.name,
        binding.shape,
        numpy_dtype(binding.dtype),
        bounds,
        ignored=binding.ignored,
        count=binding.count,
        count_axis=binding.count_axis,
    )


def choose_variant(artifact: Path, device: str, target: str | None) -> Target:
    """The target of the variant that `device` would run. UserError E0504 if the artifact has none."""
    names = [variant.target for variant in read_artifact(artifact).variants]
    if target is not None and target not in names:
        message, hint = f"the artifact has no variant for `{target}`", f"it has {', '.join(names)}"
        raise UserError("E0504", message, where=str(artifact), hint=hint)
    candidates = [find_target(name) for name in ([target] if target else names)]
    if device == "local":
        return candidates[0]  # the runtime itself picks what fits this machine
    # Boards are Arm more often than not; qemu is for Arm only.
    preferred = [candidate for candidate in candidates if candidate.arch is Arch.AARCH64]
    if not preferred and device == "qemu":
        message = f"qemu runs variants for aarch64; the artifact has {', '.join(names)}"
        hint = "compile for more than one: --target x86,rpi4; C sources for micro-controllers run in their firmware"
        raise UserError("E0504", message, where=str(artifact), hint=hint)
    return (preferred or candidates)[0]
