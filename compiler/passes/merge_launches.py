"""Pass `merge_launches`: small kernels that do not wait for one another become one launch.

What must wait for what follows from memory alone, as the runtime sees it: a launch waits for those before it that touch
the same bytes, if one of the two writes. Launches may merge where neither waits for the other, directly or through
others, and where that makes no chain of launches longer than the longest is anyway: small kernels beside the chain cost
a device their launches and little else, those of the chain are waited for.

Requires LISTED.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgec.backends.base import Argument, Backend, Part
from edgec.compiler.passbase import Options
from edgec.compiler.schedule import Launch, Schedule, TargetSchedules
from edgec.graph.ir import Value
from edgec.runtime.abi import Access

_AT_ONCE = 1024  # launches that are looked at together


def merge_launches(subject: TargetSchedules, options: Options) -> bool:
    changed = False
    for schedule in subject.programs.values():
        if any(subject.backend.merge_key(launch.spec, launch.tasks) is not None for launch in schedule.launches):
            merged = _merged(schedule, subject.backend)
            changed |= len(merged) < len(schedule.launches)
            if schedule.stop == len(schedule.launches):
                schedule.stop = len(merged)
            schedule.launches = merged
    return changed


def _merged(schedule: Schedule, backend: Backend) -> list[Launch]:
    if schedule.stop not in (None, len(schedule.launches)):
        return schedule.launches  # some must stay before the guard
    result: list[Launch] = []
    for first in range(0, len(schedule.launches), _AT_ONCE):
        launches = schedule.launches[first : first + _AT_ONCE]
        result += _Merging(launches, waits(schedule, launches), backend).run()
    return result


def waits(schedule: Schedule, launches: Sequence[Launch]) -> list[list[int]]:
    """For each launch those before it that it must wait for; not those that others of them wait for anyway."""
    spaces: dict[Value | None, int] = {None: 0}
    accesses: list[tuple[int, int, int, int, bool]] = []  # launch, space, first byte, last byte + 1, whether it writes
    starts = [0]
    for number, launch in enumerate(launches):
        for operand, argument in zip(launch.operands, launch.spec.arguments, strict=True):
            space, first, end = _place(schedule, operand)
            where = spaces.setdefault(space, len(spaces))
            accesses.append((number, where, first, end, argument.access is not Access.READ))
        starts.append(len(accesses))
    table = np.array(accesses, np.int64).reshape(-1, 5)
    result: list[list[int]] = []
    above: list[int] = []  # all that each waits for, as bits
    for number in range(len(launches)):
        found: set[int] = set()
        before = table[: starts[number]]
        for _, space, first, end, writes in accesses[starts[number] : starts[number + 1]]:
            touched = (before[:, 1] == space) & (before[:, 2] < end) & (first < before[:, 3])
            if not writes:
                touched &= before[:, 4] == 1
            found.update(before[touched, 0].tolist())
        direct, known = [], 0
        for other in sorted(found, reverse=True):
            if not known >> other & 1:
                direct.append(other)
                known |= above[other] | 1 << other
        result.append(direct)
        above.append(known)
    return result


def _place(schedule: Schedule, operand: Value | tuple[int, int]) -> tuple[Value | None, int, int]:
    """The memory of an operand: the arena (None) or a leaf's own, from byte to byte."""
    if not isinstance(operand, Value):
        span = schedule.plan.workspaces[operand]
        return None, span.offset, span.end
    home = schedule.home(operand)
    if not schedule.in_arena(home):
        return home, 0, home.type.bytes
    start = schedule.plan.values[home].offset + schedule.offset(operand)
    return None, start, start + operand.type.bytes


@dataclass(eq=False)
class _Batch:
    """Launches that become one, by number."""

    members: list[int]
    earlier: set[_Batch] = field(default_factory=set)
    later: set[_Batch] = field(default_factory=set)


class _Merging:
    def __init__(self, launches: Sequence[Launch], before: Sequence[Sequence[int]], backend: Backend):
        self._launches, self._backend = launches, backend
        self._batches = [_Batch([number]) for number in range(len(launches))]
        for batch, earlier in zip(list(self._batches), before, strict=True):
            batch.earlier = {self._batches[number] for number in earlier}
            for other in batch.earlier:
                other.later.add(batch)
        self._sort()
        self._longest = max(self._depth.values(), default=0) + 1

    def run(self) -> list[Launch]:
        open_batches: dict[Hashable, list[_Batch]] = {}
        for batch in list(self._batches):
            launch = self._launches[batch.members[0]]
            key = self._backend.merge_key(launch.spec, launch.tasks)
            if key is None:
                continue
            candidates = open_batches.setdefault(key, [])
            if not any(self._join(other, batch) for other in candidates):
                candidates.append(batch)
        return [self._launch(batch) for batch in self._batches]

    def _join(self, batch: _Batch, other: _Batch) -> bool:
        if self._bit[batch] & self._above[other] or self._bit[other] & self._above[batch]:
            return False
        depth, height = (max(of[batch], of[other]) for of in (self._depth, self._height))
        if depth + height >= self._longest or self._call([*batch.members, *other.members]) is None:
            return False
        batch.members += other.members
        for near, far in (("earlier", "later"), ("later", "earlier")):
            for neighbour in getattr(other, near):
                getattr(neighbour, far).discard(other)
                getattr(neighbour, far).add(batch)
                getattr(batch, near).add(neighbour)
        self._batches.remove(other)
        self._sort()
        return True

    def _sort(self) -> None:
        """Batches into an order in which each comes behind those that it waits for; among others the earliest first.

        Of each: how many launches stand before and behind it in the longest chains, and all that it waits for.
        """
        missing = {batch: len(batch.earlier) for batch in self._batches}
        ready = [(batch.members[0], batch) for batch in self._batches if not missing[batch]]
        heapq.heapify(ready)
        order: list[_Batch] = []
        while ready:
            _, batch = heapq.heappop(ready)
            order.append(batch)
            for other in batch.later:
                missing[other] -= 1
                if not missing[other]:
                    heapq.heappush(ready, (other.members[0], other))
        self._batches = order
        self._bit = {batch: 1 << batch.members[0] for batch in order}
        self._depth: dict[_Batch, int] = {}
        self._above: dict[_Batch, int] = {}
        for batch in order:
            self._depth[batch] = max((self._depth[other] + 1 for other in batch.earlier), default=0)
            self._above[batch] = 0
            for other in batch.earlier:
                self._above[batch] |= self._above[other] | self._bit[other]
        self._height: dict[_Batch, int] = {}
        for batch in reversed(order):
            self._height[batch] = max((self._height[other] + 1 for other in batch.later), default=0)

    def _launch(self, batch: _Batch) -> Launch:
        if len(batch.members) == 1:
            return self._launches[batch.members[0]]
        launch = self._call(batch.members)
        assert launch is not None
        return launch

    def _call(self, members: Sequence[int]) -> Launch | None:
        """These launches as one. What several only read is one argument."""
        launches = [self._launches[number] for number in members]
        places: dict[Hashable, int] = {}
        arguments: list[Argument] = []
        operands: list[Value | tuple[int, int]] = []
        parts = []
        for launch in launches:
            own = []
            for operand, argument in zip(launch.operands, launch.spec.arguments, strict=True):
                place = places.setdefault((operand, argument), len(arguments))
                if place == len(arguments):
                    arguments.append(argument)
                    operands.append(operand)
                own.append(place)
            parts.append(Part(launch.spec, launch.tasks, tuple(own)))
        spec = self._backend.merged(parts, arguments)
        if spec is None:
            return None
        labels = ", ".join(dict.fromkeys(launch.label for launch in launches))
        tasks, macs = (sum(getattr(launch, name) for launch in launches) for name in ("tasks", "macs"))
        return Launch(spec, tuple(operands), tasks, macs, labels)
