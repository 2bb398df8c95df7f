"""What a device run is: one call of `edgec-run` somewhere, with files going there and coming back.

    edgec-run ARTIFACT --program P --inputs IN --outputs OUT --steps N --threads T
              [--profile JSON] [--load-checkpoint C] [--save-checkpoint C]

`edgec-run` reads the program's inputs and scalars by name from IN, runs N steps, and writes the outputs of the last one
and the losses of all to OUT. It exits 0, or prints `error[E....]: ...` to stderr and exits 1. Runners carry the files
without looking inside.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgec.backends.toolchain import ToolFailure
from edgec.graph.errors import CODES, UserError

_EXPLAINED = re.compile(r"^error\[(?P<code>E\d{4})\]: (?P<message>.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Invocation:
    """Files on this machine, and how to run. `outputs`, `profile` and `save_checkpoint` are written."""

    artifact: Path
    program: str
    inputs: Path
    outputs: Path
    steps: int = 1
    threads: int = 1
    profile: Path | None = None
    load_checkpoint: Path | None = None
    save_checkpoint: Path | None = None

    def sent(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.artifact, self.inputs, self.load_checkpoint) if path)

    def returned(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.outputs, self.profile, self.save_checkpoint) if path)

    def arguments(self, place: Callable[[Path], str]) -> list[str]:
        """The words after `edgec-run`; `place` gives the path that a file has where it runs."""
        words = [place(self.artifact), "--program", self.program]
        words += ["--inputs", place(self.inputs), "--outputs", place(self.outputs)]
        words += ["--steps", str(self.steps), "--threads", str(self.threads)]
        for option, path in (
            ("--profile", self.profile),
            ("--load-checkpoint", self.load_checkpoint),
            ("--save-checkpoint", self.save_checkpoint),
        ):
            if path:
                words += [option, place(path)]
        return words


class Runner(Protocol):
    """A place where artifacts run."""

    @property
    def description(self) -> str:
        """For people: `this machine`, `qemu-aarch64, emulating cortex-a72`."""

    def run(self, invocation: Invocation, *, timeout: float) -> str:
        """Run, bring the written files back, and return what `edgec-run` said. UserError with its code, else E0608.

        timeout: seconds for the run itself.
        """


@contextlib.contextmanager
def device_errors(description: str) -> Iterator[None]:
    """A failure that `edgec-run` explained keeps its code; any other becomes E0608, with the program's last words."""
    try:
        yield
    except ToolFailure as failure:
        first, _, rest = str(failure).partition("\n")
        explained = _EXPLAINED.search(rest)
        if explained and explained["code"] in CODES:
            raise UserError(explained["code"], explained["message"], where=description) from failure
        raise UserError("E0608", f"{first.rstrip(':')} on {description}", hint=rest or None) from failure
