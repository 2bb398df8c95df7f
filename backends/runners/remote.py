"""Runs on another machine: a folder there, files sent, `edgec-run`, files fetched, the folder removed."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgec.backends.runners.base import Invocation, device_errors
from edgec.backends.toolchain import ToolFailure


class Shell(Protocol):
    """How to reach a machine. Every method raises ToolFailure."""

    @property
    def description(self) -> str: ...

    def make_folder(self) -> str:
        """A new folder of our own; its path there."""

    def send(self, path: Path, remote: str) -> None: ...

    def fetch(self, remote: str, path: Path) -> None: ...

    def execute(self, words: list[str], *, timeout: float) -> str:
        """Run a program there with exactly these words; its stdout."""


@dataclass(frozen=True)
class RemoteRunner:
    shell: Shell
    binary: Path  # for the machine's architecture

    @property
    def description(self) -> str:
        return self.shell.description

    def run(self, invocation: Invocation, *, timeout: float) -> str:
        with device_errors(self.description):
            folder = self.shell.make_folder()
            try:
                return self._run_in(folder, invocation, timeout)
            finally:
                # A device that went away in the middle has said so already.
                with contextlib.suppress(ToolFailure):
                    self.shell.execute(["rm", "-rf", folder], timeout=60)

    def _run_in(self, folder: str, invocation: Invocation, timeout: float) -> str:
        # Numbered, because two files may have the same name in different folders here.
        files = dict.fromkeys((*invocation.sent(), *invocation.returned()))
        places = {path: f"{folder}/{number}" for number, path in enumerate(files)}
        program = f"{folder}/edgec-run"
        self.shell.send(self.binary, program)
        for path in invocation.sent():
            self.shell.send(path, places[path])
        self.shell.execute(["chmod", "700", program], timeout=60)
        said = self.shell.execute([program, *invocation.arguments(places.__getitem__)], timeout=timeout)
        for path in invocation.returned():
            self.shell.fetch(places[path], path)
        return said
