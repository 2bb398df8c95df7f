"""Runs on this machine's kernel: natively, or with qemu's user-mode emulation of another architecture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgec.backends.base import Target
from edgec.backends.runner_binary import device_runner_binary, runner_binary
from edgec.backends.runners.base import Invocation, device_errors
from edgec.backends.targets import host_arch
from edgec.backends.toolchain import execute, require, toolchain
from edgec.graph.errors import UserError
from edgec.runtime.abi import Arch, Feature


@dataclass(frozen=True)
class DirectRunner:
    """`prefix` is what stands before the program: nothing, or an emulator and its options."""

    binary: Path
    prefix: tuple[str, ...] = ()
    description: str = "this machine"

    def run(self, invocation: Invocation, *, timeout: float) -> str:
        words = invocation.arguments(lambda path: str(path.absolute()))
        with device_errors(self.description):
            return execute([*self.prefix, self.binary, *words], timeout=timeout).decode(errors="replace")


def local_runner() -> DirectRunner:
    return DirectRunner(device_runner_binary(host_arch()))


def qemu_runner(target: Target) -> DirectRunner:
    """Under emulation of the target's CPU, so that an instruction it lacks is seen. UserError E0402, E0608."""
    tools = toolchain(target.arch)
    if target.arch is not Arch.AARCH64 or tools.emulator is None:
        raise UserError("E0608", f"target `{target.name}` does not run under qemu here", hint="--device local")
    emulator = require(tools.emulator, f"run code for {target.name}")
    # Asked for help, qemu answers with status 1.
    known = execute([emulator, "-cpu", "help"], timeout=30, success=(0, 1)).decode().split()
    cpu = emulated_cpu(target, known)
    named = f"{emulator.name} -cpu {cpu}"
    description = named if cpu == target.cpu else f"{named}, which stands in for {target.cpu}"
    return DirectRunner(runner_binary(target.arch), (str(emulator), "-cpu", cpu), description)


def emulated_cpu(target: Target, known: list[str]) -> str:
    """The CPU among qemu's `known` that is nearest to the target's: itself, or the least one that has its features."""
    if target.features & (Feature.I8MM | Feature.SVE):
        stand_ins = ()
    elif target.features:
        stand_ins = ("cortex-a76", "neoverse-n1")
    else:
        stand_ins = ("cortex-a53", "cortex-a72")
    return next((cpu for cpu in (target.cpu, *stand_ins) if cpu in known), "max")
