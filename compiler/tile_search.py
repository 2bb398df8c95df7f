"""Which chains of a program to compute in strips, and in how many, so that it needs no more than so much memory.

A chain is a run of neighbouring steps of a planned program. Where more bytes are alive than there is room for, chains
must cover the steps; what is alive while a chain runs in strips is known from the plan (what else is alive, and the
chain's results) and from the rows that a strip computes. Among all ways to cover such steps by chains, dynamic
programming over the steps finds the one with the fewest multiply-adds on top. Steps that no chain can cover stay: the
excess is least first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgec.backends.base import Group
from edgec.compiler.memory.lifetimes import aligned, lifetimes, live_bytes
from edgec.compiler.row_rules import ROWS
from edgec.compiler.schedule import Schedule
from edgec.compiler.tiling import Chain, Strip, Tiling, chain_of
from edgec.graph.ir import Role, Value

LONGEST = 48  # steps from the first to the last of a chain
CUTS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # into how many strips an image is cut
LAUNCH = 20_000  # multiply-adds that a further kernel call is worth


def choose_tilings(schedule: Schedule, room: int) -> list[Tiling]:
    """Tilings after which no step of the planned `schedule` should have more than `room` bytes alive in the arena,
    where that can be had; none where it is so already.
    """
    return _Search(schedule, room).run()


def untiled_peak(schedule: Schedule) -> int:
    """The most bytes alive in a step of the planned `schedule` that no chain can cover."""
    search = _Search(schedule, 0)
    return max(map(search.uncovered, range(len(schedule.groups))), default=0)


def least_room(schedule: Schedule) -> int:
    """The least bytes of arena that tilings of the planned `schedule` should need, to within a 32nd."""
    search = _Search(schedule, 0)
    low, high = untiled_peak(schedule), max(search.live, default=0)
    while high - low > high // 32:
        search.room = (low + high) // 2
        if search.choices()[-1].excess:
            low = search.room
        else:
            high = search.room
    return high


@dataclass(frozen=True)
class _Choice:
    """The best way to run the steps from 0 to some step: bytes too many, multiply-adds on top, and its last chain."""

    excess: int
    macs: int
    start: int
    tiling: Tiling | None

    @property
    def cost(self) -> tuple[int, int]:
        return self.excess, self.macs


class _Search:
    def __init__(self, schedule: Schedule, room: int):
        self.schedule, self.room = schedule, room
        self.results = set(schedule.graph.results())
        self.updates = set(schedule.graph.updates.values())
        self.alive = lifetimes(schedule)
        groups = schedule.groups
        self.scratch = {
            step: sum(aligned(workspace.bytes) for workspace in schedule.lowerings[group].workspaces)
            for step, group in enumerate(groups)
        }
        self.live = live_bytes(self.alive, max(len(groups), 1), self.scratch)
        self.guard = schedule.guard
        self.local = [self._is_local(group) for group in groups]
        made = {value: step for step, group in enumerate(groups) for node in group.nodes for value in node.outputs}
        self.sources = [{made[value] for value in group.inputs if value in made} for group in groups]

    def run(self) -> list[Tiling]:
        best, end = self.choices(), len(self.schedule.groups)
        tilings = []
        while end > 0:
            if best[end].tiling is not None:
                tilings.append(best[end].tiling)
            end = best[end].start
        return tilings[::-1]

    def choices(self) -> list[_Choice]:
        """The best way to run no step, the first, the first two, and so on."""
        groups = self.schedule.groups
        best = [_Choice(0, 0, -1, None)]
        for end in range(1, len(groups) + 1):
            before, excess = best[end - 1], max(self.live[end - 1] - self.room, 0)
            choice = _Choice(before.excess + excess, before.macs, end - 1, None)
            for start in self._starts(end):
                if choice.cost <= best[start].cost:
                    continue
                tiling, macs = self._fit(start, end)
                if tiling is not None:
                    found = _Choice(best[start].excess, best[start].macs + macs, start, tiling)
                    choice = min(choice, found, key=lambda c: c.cost)
            best.append(choice)
        return best

    def uncovered(self, step: int) -> int:
        """Bytes alive in a step that is part of no chain; 0 for one that can run before the chain that it stands in."""
        aside = not any(self.local[source] for source in self.sources[step])
        return 0 if self.local[step] or aside else self.live[step]

    def _is_local(self, group: Group) -> bool:
        outputs = set(group.outputs)
        if self.schedule.is_view(group):
            return False
        return not outputs & self.updates and chain_of(group.nodes, self.results) is not None

    def _starts(self, end: int) -> Iterator[int]:
        """Where chains that end before step `end` may begin, nearest first: those that cover a step with too much."""
        if not self.local[end - 1]:
            return
        covers, needed = False, set()
        for start in range(end - 1, max(end - 1 - LONGEST, -1), -1):
            if (self.guard is not None and start < self.guard < end) or start in needed:
                return
            covers |= self.live[start] > self.room
            if not self.local[start]:
                needed |= {step for step in self.sources[start] if self.local[step]}
            elif covers:
                yield start

    def _fit(self, start: int, end: int) -> tuple[Tiling | None, int]:
        """The first tiling of steps start..end-1, in the order of multiply-adds, that has room; and those on top."""
        around = self._entering(start, end)
        if around > self.room:
            return None, 0
        steps = [step for step in range(start, end) if self.local[step]]
        nodes = [node for step in steps for node in self.schedule.groups[step].nodes]
        chain = chain_of(nodes, self.results)
        if chain is None:
            return None, 0
        # What is made in strips is joined to memory of its own, though one whole might have overwritten an operand.
        around += sum(aligned(value.type.bytes) for value in chain.exits)
        values = tuple(node.output.name for node in nodes)
        for images in _halves(chain.images):
            strip = chain.middle(chain.height)
            if strip is not None and around + self._of_strip(chain, strip, images, steps) <= self.room:
                calls = (-(-chain.images // images) - 1) * len(steps)
                return Tiling(values, images, chain.height), calls * LAUNCH
        for rows in dict.fromkeys(-(-chain.height // cuts) for cuts in CUTS):
            strip = chain.middle(rows)
            if strip is None:
                break
            if rows == chain.height or around + self._of_strip(chain, strip, 1, steps) > self.room:
                continue
            strips = chain.strips(rows)
            if strips is not None:
                calls = (len(strips) * chain.images - 1) * len(steps)
                return Tiling(values, 1, rows), chain.images * extra_macs(chain, strips) + calls * LAUNCH
        return None, 0

    def _entering(self, start: int, end: int) -> int:
        """Bytes alive when a chain of steps start..end-1 begins: what it reads, what others keep, and what steps in
        between make that take no part in it, and so run before.
        """
        return sum(
            aligned(value.type.bytes)
            for value, life in self.alive.items()
            if life.end >= start
            and (life.start < start or value.role is not None or (life.start < end and not self.local[life.start]))
        )

    def _of_strip(self, chain: Chain, strip: Strip, images: int, steps: list[int]) -> int:
        """The most bytes that one strip has alive besides."""
        groups = [self.schedule.groups[step] for step in steps]
        size: dict[Value, int] = {}
        last: dict[Value, int] = {}
        first: dict[Value, int] = {}
        for step, group in enumerate(groups):
            for value in group.outputs:
                if value in strip.computed and strip.handed_out.get(value) != strip.computed[value]:
                    size[value] = _part(value, strip.computed[value], images)
                    first[value] = last[value] = step
            for node in group.nodes:
                for slot, value in enumerate(node.inputs):
                    if value in size:
                        last[value] = step
                    elif value.role is Role.INPUT and (node, slot) in strip.reads:
                        # The inputs of a program lie in another order than its feature maps: their strips are copies.
                        size[value] = max(size.get(value, 0), _part(value, strip.reads[node, slot], images))
                        first.setdefault(value, step)
                        last[value] = step
        change = [0] * (len(groups) + 1)
        for value, count in size.items():
            change[first[value]] += count
            change[last[value] + 1] -= count
        most = now = 0
        for step, group in enumerate(groups):
            now += change[step]
            most = max(most, now + self._scratch(steps[step], group, strip, images))
        return most

    def _scratch(self, step: int, group: Group, strip: Strip, images: int) -> int:
        made = group.outputs[0]
        if not self.scratch[step] or made not in strip.computed:
            return 0
        rows = strip.computed[made][1] - strip.computed[made][0] + 1
        return self.scratch[step] * rows * images // (made.type.shape[ROWS] * made.type.shape[0])


def _halves(images: int) -> Iterator[int]:
    """Half of so many images, and so on down to one."""
    while images > 1:
        images = -(-images // 2)
        yield images


def extra_macs(chain: Chain, strips: list[Strip]) -> int:
    """Multiply-adds on top for one image: of rows that neighbouring strips both compute."""
    total = 0
    for node in chain.nodes:
        value = node.output
        shape = value.type.shape
        rows = sum(s.computed[value][1] - s.computed[value][0] for s in strips if value in s.computed)
        total += node.cost.macs * (rows - shape[ROWS]) // (shape[ROWS] * shape[0])
    return total


def _part(value: Value, rows: tuple[int, int], images: int) -> int:
    shape = value.type.shape
    return aligned(value.type.bytes * (rows[1] - rows[0]) * images // (shape[ROWS] * shape[0]))
