"""Pass `list_launches`: the calls of all groups, in order, and where the guard stands.

A guard in the middle of a program makes a device wait for the host. Where the backend has kernels that look at what is
watched themselves, those that update become such kernels, and the guard moves to the end: there it only reports.

Requires PLANNED; ensures LISTED.
"""

from __future__ import annotations

from dataclasses import replace

from edgec.backends.base import Backend, Workspace
from edgec.compiler.passbase import Options
from edgec.compiler.schedule import Launch, Schedule, TargetSchedules
from edgec.graph.ir import Value
from edgec.runtime.abi import Access


def list_launches(subject: TargetSchedules, options: Options) -> bool:
    for schedule in subject.programs.values():
        schedule.launches, schedule.stop = _in_order(schedule)
        guarded = _guarded(schedule, subject.backend) if schedule.stop is not None else None
        if guarded is not None:
            schedule.launches, schedule.stop = guarded, len(guarded)
    return True


def _in_order(schedule: Schedule) -> tuple[list[Launch], int | None]:
    launches: list[Launch] = []
    stop, guard = None, schedule.guard
    for position, group in enumerate(schedule.groups):
        if position == guard:
            stop = len(launches)
        for call in schedule.lowerings[group].calls:
            operands = tuple((position, o.index) if isinstance(o, Workspace) else o for o in call.operands)
            launches.append(Launch(call.spec, operands, call.tasks, call.macs, call.label))
    return launches, len(launches) if guard == len(schedule.groups) else stop


def _guarded(schedule: Schedule, backend: Backend) -> list[Launch] | None:
    """The same launches, those that update asking for themselves; None where one of them cannot."""
    watched, launches = schedule.watched, []
    for launch in schedule.launches:
        if _updates(schedule, launch):
            spec = backend.guarded(launch.spec, len(watched))
            if spec is None:
                return None
            launch = replace(launch, spec=spec, operands=(*launch.operands, *watched))
        launches.append(launch)
    return launches


def _updates(schedule: Schedule, launch: Launch) -> bool:
    return any(
        argument.access is not Access.READ
        and isinstance(operand, Value)
        and not schedule.in_arena(schedule.home(operand))
        for operand, argument in zip(launch.operands, launch.spec.arguments, strict=True)
    )
