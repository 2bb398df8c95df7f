"""Local search for an order of groups with fewer bytes alive at the peak.

At the step of the peak, some values are alive that it does not touch. A move either delays what made such a value,
together with what was computed for that alone, to right before its next use; or runs what uses it last, with what that
still waits for, before the peak. Moves are taken while the peak falls, or is met in fewer steps, or the sum over all
steps falls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from edgec.backends.base import Group
from edgec.compiler.memory.lifetimes import aligned
from edgec.compiler.schedule import Schedule
from edgec.graph.ir import Role, Value

TRIALS = 800  # orders that are looked at, each some 50 microseconds in a program of hundreds of groups
MOST_MOVED = 24  # groups

Score = tuple[int, int, int]  # bytes at the peak, steps that meet it, bytes over all steps


class Reordering:
    """One program: `before` are the groups that each waits for, `parts` what runs before and behind the guard."""

    def __init__(self, schedule: Schedule, parts: Sequence[Sequence[Group]], before: Mapping[Group, set[Group]]):
        groups = schedule.groups
        self.groups = groups
        self.number = {group: number for number, group in enumerate(groups)}
        self.part = np.zeros(len(groups), int)
        for group in parts[1]:
            self.part[self.number[group]] = 1
        self.before = [{self.number[other] for other in before[group]} for group in groups]
        self.after: list[set[int]] = [set() for _ in groups]
        for number, others in enumerate(self.before):
            for other in others:
                self.after[other].add(number)
        touching: dict[Value, dict[int, None]] = {}
        for number, group in enumerate(groups):
            for value in (*group.inputs, *group.outputs):
                home = schedule.home(value)
                if schedule.in_arena(home):
                    touching.setdefault(home, {})[number] = None
        outputs = {schedule.home(value) for value in schedule.graph.outputs.values()}
        homes = list(touching)
        self.touching = [list(touching[home]) for home in homes]
        # What nobody reads is filled before the first step; what is there from end to end makes no difference.
        unread = {schedule.home(leaf) for leaf in schedule.graph.leaves.values()}.difference(touching, outputs)
        self.unread = sum(aligned(home.type.bytes) for home in unread if schedule.in_arena(home))
        self.bytes = np.array([aligned(home.type.bytes) for home in homes], np.int64)
        self.from_start = np.array([home.role in (Role.INPUT, Role.SCALAR) for home in homes], bool)
        self.to_end = np.array([home in outputs for home in homes], bool)
        self._flat = np.array([number for numbers in self.touching for number in numbers], int)
        self._first = np.cumsum([0, *(len(numbers) for numbers in self.touching)])[:-1]

    def improve(self, order: Sequence[Group]) -> list[Group]:
        """The best order that moves lead to from `order`, which is valid; so is the result."""
        numbers = [self.number[group] for group in order]
        if len(numbers) > 2 and self.touching:
            best, trials, improved = self._score(numbers), 0, True
            while improved and trials < TRIALS:
                improved = False
                for moved in self._moves(numbers):
                    trials += 1
                    score = self._score(moved)
                    if score < best:
                        numbers, best, improved = moved, score, True
                        break
                    if trials >= TRIALS:
                        break
        return [self.groups[number] for number in numbers]

    def _lives(self, numbers: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """First and last step of every home."""
        step = np.empty(len(numbers), int)
        step[numbers] = np.arange(len(numbers))
        steps = step[self._flat]
        starts, ends = np.minimum.reduceat(steps, self._first), np.maximum.reduceat(steps, self._first)
        return np.where(self.from_start, 0, starts), np.where(self.to_end, len(numbers) - 1, ends)

    def _live(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        change = np.zeros(len(self.groups) + 1, np.int64)
        np.add.at(change, starts, self.bytes)
        np.subtract.at(change, ends + 1, self.bytes)
        change[0] += self.unread
        change[1] -= self.unread
        return np.cumsum(change)[:-1]

    def _score(self, numbers: list[int]) -> Score:
        live = self._live(*self._lives(numbers))
        peak = int(live.max())
        return peak, int((live == peak).sum()), int(live.sum())

    def _moves(self, numbers: list[int]) -> Iterator[list[int]]:
        """Neighbours of an order, those that move most bytes from its peak first."""
        starts, ends = self._lives(numbers)
        peak = int(self._live(starts, ends).argmax())
        step = {number: place for place, number in enumerate(numbers)}
        across = [
            home
            for home in np.flatnonzero((starts <= peak) & (ends >= peak))
            if not any(step[number] == peak for number in self.touching[home])
        ]
        for home in sorted(across, key=lambda home: (-self.bytes[home], home)):
            places = sorted(step[number] for number in self.touching[home])
            earlier, later = [p for p in places if p < peak], [p for p in places if p > peak]
            if len(earlier) == 1 and not self.from_start[home]:
                yield from self._delayed(numbers, step, earlier[0], later[0] if later else len(numbers))
            if later and not self.to_end[home]:
                yield from self._advanced(numbers, step, later, peak)

    def _delayed(self, numbers: list[int], step: dict[int, int], place: int, use: int) -> Iterator[list[int]]:
        """What stands at `place` moved to before `use`; then with what was computed for it alone."""
        cone = [numbers[place]]
        while len(cone) <= MOST_MOVED:
            members = set(cone)
            target = min((step[other] for number in cone for other in self.after[number] - members), default=use)
            if target > max(step[number] for number in cone) + 1:
                moved = self._moved(numbers, step, cone, target)
                if moved is not None:
                    yield moved
            wider = [
                other
                for number in cone
                for other in sorted(self.before[number])
                if other not in members and self.after[other] <= members
            ]
            if not wider:
                return
            cone += list(dict.fromkeys(wider))

    def _advanced(self, numbers: list[int], step: dict[int, int], uses: list[int], peak: int) -> Iterator[list[int]]:
        """All uses behind the peak, with what they wait for, moved to before it."""
        needed = {numbers[place] for place in uses}
        stack = list(needed)
        while stack and len(needed) <= MOST_MOVED:
            for other in self.before[stack.pop()]:
                if step[other] >= peak and other not in needed:
                    needed.add(other)
                    stack.append(other)
        if not stack and numbers[peak] not in needed:
            moved = self._moved(numbers, step, list(needed), peak)
            if moved is not None:
                yield moved

    def _moved(self, numbers: list[int], step: dict[int, int], chosen: list[int], target: int) -> list[int] | None:
        """`chosen` in their order, right before what stands at `target`; None where that crosses the guard."""
        members = set(chosen)
        head = [number for number in numbers[:target] if number not in members]
        tail = [number for number in numbers[target:] if number not in members]
        moved = [*head, *sorted(chosen, key=step.__getitem__), *tail]
        return moved if (np.diff(self.part[moved]) >= 0).all() else None
