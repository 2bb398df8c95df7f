"""Pass `order_operators`: an execution order with a low peak of live bytes; the part before the guard first.

Several orders are made and the one with the lowest peak is kept; ties go to the one with fewer byte-steps, then to the
earlier in the list: the given order, and two greedy lists, one built from the start of the program (next is the ready
group that adds least to what is alive) and one from its end (last is the group whose results cost most to have early).

That one is improved by local search (`memory/reorder.py`).

Requires STORAGE; ensures ORDERED.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from edgec.backends.base import Group
from edgec.compiler.memory.lifetimes import aligned, lifetimes, live_bytes
from edgec.compiler.memory.reorder import Reordering
from edgec.compiler.passbase import Options
from edgec.compiler.schedule import Schedule, TargetSchedules, group_predecessors
from edgec.graph.ir import Value

Edges = Mapping[Group, set[Group]]


def order_operators(subject: TargetSchedules, options: Options) -> bool:
    changed = False
    for schedule in subject.programs.values():
        order = best_order(schedule)
        changed |= order != schedule.groups
        schedule.reorder(order)
    return changed


def best_order(schedule: Schedule) -> list[Group]:
    before = group_predecessors(schedule)
    after = reverse(before)
    forward = schedule.forward()
    parts = [
        [group for group in schedule.groups if group.anchor in forward],
        [group for group in schedule.groups if group.anchor not in forward],
    ]
    makers: list[Callable[[], list[Group]]] = [
        lambda: _given(schedule, parts, before, after),
        lambda: _from_start(schedule, parts, before, after),
        lambda: _from_end(schedule, parts, before, after),
    ]
    best = min((make() for make in makers), key=lambda order: _score(schedule, order))
    return Reordering(schedule, parts, before).improve(best)


def _score(schedule: Schedule, order: list[Group]) -> tuple[int, int]:
    live = live_bytes(lifetimes(schedule, order), max(len(order), 1))
    return max(live), sum(live)


def reverse(edges: Edges) -> dict[Group, set[Group]]:
    result: dict[Group, set[Group]] = {group: set() for group in edges}
    for group, others in edges.items():
        for other in others:
            result[other].add(group)
    return result


def _list_schedule(
    parts: list[list[Group]], waits_for: Edges, releases: Edges, pick: Callable[[list[Group]], Group]
) -> list[Group]:
    """Kahn's algorithm, part by part: `pick` takes the next of the ready groups."""
    missing = {group: len(waits_for[group]) for part in parts for group in part}
    order: list[Group] = []
    for part in parts:
        members = set(part)
        ready = [group for group in part if missing[group] == 0]
        while ready:
            group = pick(ready)
            ready.remove(group)
            order.append(group)
            for other in releases[group]:
                missing[other] -= 1
                if missing[other] == 0 and other in members:
                    ready.append(other)
    return order


class _Growth:
    """What each group would add to the live bytes, remembered until a group that touches the same memory is taken.

    Without that, hundreds of ready groups (the slices of a long sequence) are counted anew for each that is taken.
    """

    def __init__(self, compute: Callable[[Group], int], touched: Mapping[Group, set[Value]]):
        self._compute, self._touched = compute, touched
        self._known: dict[Group, int] = {}
        self._around: dict[Value, list[Group]] = {}
        for group, homes in touched.items():
            for home in homes:
                self._around.setdefault(home, []).append(group)

    def __getitem__(self, group: Group) -> int:
        if group not in self._known:
            self._known[group] = self._compute(group)
        return self._known[group]

    def forget_around(self, group: Group) -> None:
        for home in self._touched[group]:
            for other in self._around[home]:
                self._known.pop(other, None)


def _given(schedule: Schedule, parts: list[list[Group]], before: Edges, after: Edges) -> list[Group]:
    rank = {group: position for position, group in enumerate(schedule.groups)}
    return _list_schedule(parts, before, after, lambda ready: min(ready, key=rank.__getitem__))


def _from_start(schedule: Schedule, parts: list[list[Group]], before: Edges, after: Edges) -> list[Group]:
    """Greedy: the least growth of live bytes next; among equals the one given first."""
    rank = {group: position for position, group in enumerate(schedule.groups)}
    read = {group: _homes(schedule, group.inputs) for group in schedule.groups}
    made = {group: _homes(schedule, group.outputs) for group in schedule.groups}
    kept = _homes(schedule, schedule.graph.outputs.values())
    alive = _homes(schedule, schedule.graph.leaves.values())
    readers: dict[Value, set[Group]] = {}
    for group, homes in read.items():
        for home in homes:
            readers.setdefault(home, set()).add(group)

    def growth_of(group: Group) -> int:
        born = sum(aligned(v.type.bytes) for v in made[group] if v not in alive)
        freed = sum(aligned(v.type.bytes) for v in read[group] if readers[v] == {group} and v not in kept)
        return born - freed

    growth = _Growth(growth_of, {group: read[group] | made[group] for group in schedule.groups})

    def pick(ready: list[Group]) -> Group:
        group = min(ready, key=lambda g: (growth[g], rank[g]))
        growth.forget_around(group)
        alive.update(made[group])
        for home in read[group]:
            readers[home].discard(group)
        return group

    return _list_schedule(parts, before, after, pick)


def _from_end(schedule: Schedule, parts: list[list[Group]], before: Edges, after: Edges) -> list[Group]:
    """The same, backwards: a group that runs last takes its results away and brings its operands to life."""
    rank = {group: position for position, group in enumerate(schedule.groups)}
    read = {group: _homes(schedule, group.inputs) for group in schedule.groups}
    made = {group: _homes(schedule, group.outputs) for group in schedule.groups}
    alive = _homes(schedule, schedule.graph.outputs.values())

    def growth_of(group: Group) -> int:
        born = sum(aligned(v.type.bytes) for v in read[group] - made[group] if v not in alive)
        freed = sum(aligned(v.type.bytes) for v in made[group] if v in alive)
        return born - freed

    growth = _Growth(growth_of, {group: read[group] | made[group] for group in schedule.groups})

    def pick(ready: list[Group]) -> Group:
        group = min(ready, key=lambda g: (growth[g], -rank[g]))
        growth.forget_around(group)
        alive.difference_update(made[group])
        alive.update(read[group])
        return group

    return _list_schedule(parts[::-1], after, before, pick)[::-1]


def _homes(schedule: Schedule, values: Iterable[Value]) -> set[Value]:
    """The memory in the arena behind `values`."""
    return {home for home in map(schedule.home, values) if schedule.in_arena(home)}
