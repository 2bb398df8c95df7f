"""Pass `place_parts`: slices that are views of their operand, concatenations whose parts are made where they belong.

A slice moves nothing where its elements are one run of bytes of its operand; a concatenation needs no kernel where each
of its parts is a run of bytes of the result and can lie there from the start. Both are taken in chains that were cut
into strips, and elsewhere where the peak of live bytes does not grow: a view keeps all of its operand alive, and a
result exists as a whole from its first part on.

Left alone: what belongs to a parameter or state, what the program hands out, and runs that are not aligned.

Requires STORAGE; ensures PARTS_PLACED.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgec.compiler.memory.lifetimes import Lifetime, aligned, lifetimes, live_bytes
from edgec.compiler.passbase import Options
from edgec.compiler.schedule import Schedule, TargetSchedules, same_order
from edgec.graph.ir import Node, Value
from edgec.graph.ops.concat import Concat
from edgec.graph.ops.slice import Slice
from edgec.runtime.abi import BUFFER_ALIGNMENT, Storage


@dataclass(frozen=True)
class Part:
    """`value` comes to lie in `whole`, from byte `start` on, so that `node` does not have to move it."""

    node: Node
    value: Value
    whole: Value
    start: int


def place_parts(subject: TargetSchedules, options: Options) -> bool:
    return any([_place(schedule) for schedule in subject.programs.values()])


def _place(schedule: Schedule) -> bool:
    live, changed = _Live(schedule), False
    for parts in _candidates(schedule):
        # Whoever cut a chain into strips has counted on its results being there as a whole.
        most = None if any(part.node in schedule.seams for part in parts) else live.peak
        if live.take(schedule.home(parts[0].whole), [part.value for part in parts], most):
            changed = True
            for part in parts:
                schedule.alias[part.value] = part.whole
                schedule.offsets[part.value] = part.start
    return changed


class _Live:
    """Bytes alive in each step, as values come to lie in others."""

    def __init__(self, schedule: Schedule):
        self._alive = lifetimes(schedule)
        self._bytes = np.array(live_bytes(self._alive, max(len(schedule.groups), 1)))

    @property
    def peak(self) -> int:
        return int(self._bytes.max())

    def take(self, home: Value, parts: Sequence[Value], most: int | None) -> bool:
        """Let `parts` lie in `home`, if then no step has more than `most` bytes alive."""
        lives = [self._alive[value] for value in (home, *parts)]
        whole = Lifetime(min(life.start for life in lives), max(life.end for life in lives))
        placed = self._bytes.copy()
        for value, life in zip((home, *parts), lives, strict=True):
            placed[life.start : life.end + 1] -= aligned(value.type.bytes)
        placed[whole.start : whole.end + 1] += aligned(home.type.bytes)
        if most is not None and placed.max() > most:
            return False
        self._bytes = placed
        for value in parts:
            del self._alive[value]
        self._alive[home] = whole
        return True


def _candidates(schedule: Schedule) -> Iterator[list[Part]]:
    """All slices of one value together, and all parts of one concatenation. Read while `alias` grows."""
    handed_out = _handed_out(schedule)
    alone = [group.anchor for group in schedule.groups if len(group.nodes) == 1]
    slices: dict[Value, list[Part]] = {}
    for node in alone:
        if isinstance(node.op, Slice) and node.output not in handed_out:
            (whole,) = node.inputs
            start = first_byte(schedule, node.output, whole, node.op.starts) if max(node.op.steps) == 1 else None
            if start is not None and schedule.in_arena(schedule.home(whole)):
                slices.setdefault(whole, []).append(Part(node, node.output, whole, start))
    yield from slices.values()
    for node in alone:
        if isinstance(node.op, Concat) and schedule.in_arena(schedule.home(node.output)):
            parts = _joined(schedule, node, handed_out)
            if parts:
                yield parts


def _handed_out(schedule: Schedule) -> set[Value]:
    """Outputs of the program, and what they are views of."""
    found = set()
    for value in schedule.graph.outputs.values():
        found.add(value)
        while value in schedule.alias:
            value = schedule.alias[value]
            found.add(value)
    return found


def _joined(schedule: Schedule, node: Node, handed_out: set[Value]) -> list[Part]:
    """The parts of a concatenation with their places in it; none where one of them has memory of its own to lie in."""
    whole, position = node.output, 0
    parts: list[Part] = []
    seen: set[Value] = set()
    for part in node.inputs:
        starts = [0] * whole.type.rank
        starts[node.op.axis] = position
        start = first_byte(schedule, part, whole, tuple(starts))
        free = part.role is None and part not in schedule.alias and part not in handed_out and part not in seen
        if start is None or not free:
            return []
        seen.add(part)
        parts.append(Part(node, part, whole, start))
        position += part.type.shape[node.op.axis]
    return parts


def first_byte(schedule: Schedule, part: Value, whole: Value, starts: tuple[int, ...]) -> int | None:
    """Where the box of `part`, from `starts` on, begins in `whole` if it is one aligned run of bytes there."""
    storage, shape, box = schedule.storage[whole], whole.type.shape, part.type.shape
    if storage.block or storage.dims != shape or 0 in box:
        return None
    if not same_order(schedule.storage[part], Storage(box, storage.perm)):
        return None
    order = [axis for axis in storage.perm if shape[axis] > 1]
    while order and box[order[0]] == 1:
        del order[0]
    if any(box[axis] != shape[axis] for axis in order[1:]):
        return None
    first = sum(map(math.prod, zip(starts, storage.strides(), strict=True))) * whole.type.dtype.bytes
    return first if first % BUFFER_ALIGNMENT == 0 else None
