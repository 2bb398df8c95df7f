"""`edgec tune`: measures the choices that the kernels of a model leave open, and keeps what beats the cost model.

The database is written after every class of problems, so a run that was ended goes on where it was.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgec.backends.base import Target
from edgec.backends.targets import host_arch, host_features
from edgec.backends.tvm.backend import TvmBackend
from edgec.backends.tvm.tuning.choice import Record, Tuning
from edgec.backends.tvm.tuning.database import read_records, shipped_records, write_records
from edgec.backends.tvm.tuning.machine import machine_of
from edgec.compiler.budget import schedule_target
from edgec.compiler.compile import refuse_unsupported
from edgec.compiler.passbase import Trace
from edgec.compiler.pipeline import transform_module
from edgec.compiler.schedule import TargetSchedules
from edgec.graph.errors import UserError
from edgec.tools.request import Request
from edgec.tools.tune.groups import find_classes
from edgec.tools.tune.measure import measure


@dataclass(frozen=True)
class Wish:
    """`candidates`: ways measured for a class at most. seconds: of the whole run. again: measure known classes too."""

    candidates: int = 12
    seconds: float = 1200.0
    again: bool = False


@dataclass(frozen=True)
class Measured:
    """One class: what was chosen, None for the model's choice, and what that gains; its share of estimated cycles."""

    key: str
    parameters: dict[str, int | str] | None
    gain: float
    microseconds: float
    share: float


@dataclass
class TuneReport:
    target: str
    isa: str
    database: str
    classes: int = 0
    known: int = 0  # measured before
    left: int = 0  # for which there was no time
    seconds: float = 0.0
    measured: list[Measured] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {"measured": [vars(one) for one in self.measured]}


# Told before each class: its key, how many are done, how many there are.
Say = Callable[[str, int, int], None]


def tune(request: Request, path: Path, wish: Wish, say: Say, stopped: Callable[[], bool] = lambda: False) -> TuneReport:
    """Measure the classes of `request`'s programs into the database at `path`. UserError E0406 for a target that cannot
    run here, E0505, E0507 and E0508 for the database, and all of `edgec.compile`.
    """
    began = time.monotonic()
    target = _measurable(request.targets)
    records = read_records(path) if path.exists() else {}
    backend = TvmBackend(target, _known(records))
    schedules = schedule(request, backend)
    report = TuneReport(target.name, machine_of(target).isa, str(path))
    deadline = began + wish.seconds
    classes, seen = find_classes(schedules, _known(records)), set()
    while one := next((one for one in classes if one.key not in seen), None):
        seen.add(one.key)
        if one.key in records and not wish.again:
            report.known += 1
            continue
        if stopped() or time.monotonic() > deadline:
            report.left += 1
            continue
        say(one.key, len(seen) - 1, len(seen | {other.key for other in classes}))
        before = records.get(one.key, Record(None)).parameters
        record, outcome = measure(one, backend, _known(records), wish.candidates)
        records[one.key] = record
        write_records(path, records, cpu_name())
        share = one.cycles / max(sum(other.cycles for other in classes), 1.0)
        report.measured.append(Measured(one.key, record.parameters, record.gain, outcome.seconds * 1e6, share))
        if record.parameters != before:
            # What is asked depends on what was chosen: only a direct convolution has tiles of a product.
            classes = find_classes(schedules, _known(records))
    report.classes = len(seen)
    if not path.exists():
        write_records(path, records, cpu_name())
    report.seconds = time.monotonic() - began
    return report


def schedule(request: Request, backend: TvmBackend) -> TargetSchedules:
    """The programs of `request` as groups. UserError like `edgec.compile`."""
    module = request.read()
    transform_module(module, request.options, Trace())
    refuse_unsupported(module, [backend])
    schedules = schedule_target(module, backend, request.options, Trace())
    assert schedules is not None  # nothing asked to stop early
    return schedules


def _known(records: Mapping[str, Record]) -> Tuning:
    """As compilations will choose."""
    return Tuning({**shipped_records(), **records})


def _measurable(targets: Sequence[Target]) -> Target:
    if len(targets) != 1:
        raise UserError("E0406", "one target is tuned at a time", hint="name one: --target x86")
    (target,) = targets
    here = target.arch is host_arch() and target.lanes > 1 and target.features in host_features()
    if not here:
        message = f"kernels for `{target.name}` cannot be timed on this machine"
        hint = "run `edgec tune` where they run, and give the database to `edgec compile --tuning`"
        raise UserError("E0406", message, hint=hint)
    return target


def cpu_name() -> str:
    """This machine's processor, for people who read a database."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    fields = dict(line.partition(":")[::2] for line in reversed(lines) if ":" in line)
    found = {name.strip(): value.strip() for name, value in fields.items()}
    words = (found.get("model name", platform.machine()), found.get("cpu family"), found.get("model"))
    return ", ".join(
        word if i == 0 else f"{('family', 'model')[i - 1]} {word}" for i, word in enumerate(words) if word is not None
    )
