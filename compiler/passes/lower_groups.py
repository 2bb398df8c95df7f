"""Pass `lower_groups`: kernel calls for every group, from the backend. Views need none.

Requires PAIRED; ensures LOWERED.
"""

from __future__ import annotations

from edgec.backends.base import Group, Lowering
from edgec.compiler.passbase import Options
from edgec.compiler.schedule import Schedule, TargetSchedules
from edgec.graph.errors import InternalError
from edgec.graph.ir import Value
from edgec.runtime.abi import MAX_KERNEL_ARGS


def lower_groups(subject: TargetSchedules, options: Options) -> bool:
    for schedule in subject.programs.values():
        schedule.lowerings = {group: _lower(schedule, group) for group in schedule.groups}
    return True


def _lower(schedule: Schedule, group: Group) -> Lowering:
    if schedule.is_view(group):
        return Lowering(())
    lowering = schedule.backend.lower(group, schedule.storage, shared_operands(schedule, group))
    if not lowering.calls:
        raise InternalError(f"the backend has no kernel call for the group of {group.anchor.output}")
    for call in lowering.calls:
        if len(call.operands) > MAX_KERNEL_ARGS:
            raise InternalError(f"kernel {call.spec.stem} has {len(call.operands)} operands")
    return lowering


def shared_operands(schedule: Schedule, group: Group) -> dict[Value, Value]:
    """For every output of the group that overwrites one of its inputs, that input."""

    def place(value: Value) -> tuple[Value, int]:
        return schedule.home(value), schedule.offset(value)

    behind = {place(value): value for value in group.inputs}
    shared = {value: behind.get(place(value)) for value in group.outputs}
    return {value: operand for value, operand in shared.items() if operand is not None}
