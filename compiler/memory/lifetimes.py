"""From which step to which step each value must keep its memory.

A step is one group, by its position. Values that share memory (`Schedule.home`) have one lifetime. Inputs and scalars
live from the start of the program, because they are written before it runs; outputs to its end. Lifetimes are whole
groups: what a group reads and what it writes are alive together, unless they are the same memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgec.backends.base import Group
from edgec.compiler.schedule import Schedule
from edgec.graph.ir import Value
from edgec.runtime.abi import BUFFER_ALIGNMENT


@dataclass(frozen=True)
class Lifetime:
    """The first and the last step, both included."""

    start: int
    end: int


def lifetimes(schedule: Schedule, order: Sequence[Group] | None = None) -> dict[Value, Lifetime]:
    """Lifetimes of all memory in the arena, by the value that owns it, for the groups in `order` (as scheduled)."""
    order = schedule.groups if order is None else order
    start: dict[Value, int] = {}
    end: dict[Value, int] = {}

    def touch(value: Value, step: int) -> None:
        home = schedule.home(value)
        if schedule.in_arena(home):
            start.setdefault(home, step)
            end[home] = max(end.get(home, step), step)

    for leaf in schedule.graph.leaves.values():
        touch(leaf, 0)
    for step, group in enumerate(order):
        for value in (*group.inputs, *group.outputs):
            touch(value, step)
    last = max(len(order) - 1, 0)
    for value in schedule.graph.outputs.values():
        touch(value, last)
    return {home: Lifetime(start[home], end[home]) for home in start}


def aligned(size: int) -> int:
    return -(-size // BUFFER_ALIGNMENT) * BUFFER_ALIGNMENT


def live_bytes(alive: Mapping[Value, Lifetime], steps: int, workspaces: Mapping[int, int] | None = None) -> list[int]:
    """Bytes alive in each step, every buffer rounded up to the alignment; `workspaces` are bytes by step."""
    change = [0] * (steps + 1)
    for value, life in alive.items():
        change[life.start] += aligned(value.type.bytes)
        change[life.end + 1] -= aligned(value.type.bytes)
    live, now = [], 0
    for step in range(steps):
        now += change[step]
        live.append(now + (workspaces or {}).get(step, 0))
    return live
