"""Pass `pair_in_place`: outputs that overwrite an input of their group, where nobody reads that input any more.

The backend names the pairs that its kernels can take. A pair is refused where the input's memory is not the arena's or
belongs to an input or output of the program, is read later, holds its elements in another order, or reaches the group
under a second name; and, where groups run side by side, is read shortly before.

Requires ORDERED and STORAGE; ensures PAIRED.
"""

from __future__ import annotations

from edgec.backends.base import Group
from edgec.compiler.memory.lifetimes import lifetimes
from edgec.compiler.passbase import Options
from edgec.compiler.schedule import Schedule, TargetSchedules, same_order
from edgec.graph.ir import Value


def pair_in_place(subject: TargetSchedules, options: Options) -> bool:
    ahead = subject.backend.target.ahead if options.budget is None else 0
    pairs = [_pair(schedule, ahead) for schedule in subject.programs.values()]
    return any(pairs)


def _pair(schedule: Schedule, ahead: int) -> int:
    made = 0
    place = {group: step for step, group in enumerate(schedule.groups)}
    of = {node: group for group in schedule.groups for node in group.nodes}
    last = {home: life.end for home, life in lifetimes(schedule).items()}
    outputs = {schedule.home(value) for value in schedule.graph.outputs.values()}
    for step, group in enumerate(schedule.groups):
        taken: set[Value] = set()
        for output, operand in schedule.backend.in_place(group):
            home = schedule.home(operand)
            if output in schedule.alias or home in taken or home in outputs or last.get(home) != step:
                continue
            if home.role is not None or not _one_name(schedule, group, home):
                continue
            if not _congruent(schedule, output, operand):
                continue
            # Who overwrites what another group reads must wait for it, where groups run side by side.
            readers = {of[node] for node, _ in operand.uses} - {group}
            if any(step - place[reader] <= ahead for reader in readers):
                continue
            taken.add(home)
            schedule.alias[output] = operand
            last[home] = last.pop(output)
            if output in outputs:
                outputs.add(home)
            made += 1
    return made


def _one_name(schedule: Schedule, group: Group, home: Value) -> bool:
    return sum(schedule.home(value) is home for value in group.inputs) == 1


def _congruent(schedule: Schedule, a: Value, b: Value) -> bool:
    """Whether element i of both lies at the same byte."""
    return a.type.dtype.bytes == b.type.dtype.bytes and same_order(schedule.storage[a], schedule.storage[b])
