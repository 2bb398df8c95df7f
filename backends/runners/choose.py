"""From what a user calls a device to its runner."""

from __future__ import annotations

from pathlib import Path

from edgec.backends.base import Target
from edgec.backends.runner_binary import device_runner_binary, runner_binary
from edgec.backends.runners.adb import AdbShell
from edgec.backends.runners.base import Runner
from edgec.backends.runners.direct import local_runner, qemu_runner
from edgec.backends.runners.remote import RemoteRunner
from edgec.backends.runners.ssh import SshShell
from edgec.graph.errors import UserError


def choose_runner(device: str, target: Target) -> Runner:
    """`local`, `qemu`, `ssh://[user@]host[:port]`, `adb` or `adb:SERIAL`. UserError E0402, E0608.

    target: the variant that is to run there; it says which CPU to emulate and which `edgec-run` to send.
    """
    if device == "local":
        return local_runner()
    if device == "qemu":
        return qemu_runner(target)
    if device.startswith("ssh://"):
        return RemoteRunner(SshShell.at(device), _binary(target))
    name, _, serial = device.partition(":")
    if name == "adb":
        return RemoteRunner(AdbShell(serial or None), _binary(target))
    raise UserError("E0608", f"unknown device `{device}`", hint="local, qemu, ssh://host, adb or adb:SERIAL")


def _binary(target: Target) -> Path:
    return device_runner_binary(target.host) if target.arch.is_device else runner_binary(target.arch)
