"""Offsets in one arena: a packing of lifetimes (steps) times sizes (bytes).

Greedy by a fixed order: each request takes the lowest gap that fits among those that are alive with it. Several orders
are tried, then those at the top of the best packing are moved to the front of its order, then the best order is changed
at random, each a bounded number of times.
Never less than the largest sum of live bytes, which is a lower bound for every plan; most programs reach it.

The greedy orders follow Pisarchyk and Lee, "Efficient memory management for deep neural net inference" (MLSys 2020
workshop), arXiv:2001.03288.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from edgec.compiler.memory.lifetimes import Lifetime, aligned, lifetimes, live_bytes
from edgec.compiler.schedule import MemoryPlan, Schedule, Span
from edgec.graph.ir import Value

ROUNDS = 24  # of moving what lies on top to the front; each costs as much as one order
SHUFFLES = 60_000  # requests packed in random changes of the best order,
MOST_SHUFFLES = 300  # but so many changes at most


@dataclass(frozen=True)
class Request:
    """`bytes` of memory for the steps of a lifetime."""

    bytes: int
    life: Lifetime


def make_plan(schedule: Schedule, ahead: int = 0) -> MemoryPlan:
    """Place every value of the arena and every workspace. The schedule's groups must be lowered.

    ahead: memory is free that many steps after its last use.
    """
    alive = lifetimes(schedule)
    keys: list[Value | tuple[int, int]] = list(alive)
    last = max(len(schedule.groups) - 1, 0)
    requests = [
        Request(value.type.bytes, Lifetime(life.start, min(life.end + ahead, last))) for value, life in alive.items()
    ]
    scratch: dict[int, int] = {}
    for step, group in enumerate(schedule.groups):
        for workspace in schedule.lowerings[group].workspaces:
            keys.append((step, workspace.index))
            requests.append(Request(workspace.bytes, Lifetime(step, min(step + ahead, last))))
            scratch[step] = scratch.get(step, 0) + aligned(workspace.bytes)
    peak = max(live_bytes(alive, max(len(schedule.groups), 1), scratch), default=0)
    offsets = assign_offsets(requests, _bound(requests) if ahead else peak)
    values: dict[Value, Span] = {}
    workspaces: dict[tuple[int, int], Span] = {}
    for key, request, offset in zip(keys, requests, offsets, strict=True):
        span = Span(offset, request.bytes)
        if isinstance(key, Value):
            values[key] = span
        else:
            workspaces[key] = span
    sizes = [aligned(request.bytes) for request in requests]
    return MemoryPlan(values, workspaces, _top(sizes, offsets), peak)


def _bound(requests: Sequence[Request]) -> int:
    """The largest sum of bytes that are alive in one step."""
    steps = range(max((r.life.end for r in requests), default=0) + 1)
    return max(sum(aligned(r.bytes) for r in requests if r.life.start <= step <= r.life.end) for step in steps)


def assign_offsets(requests: Sequence[Request], lower_bound: int) -> list[int]:
    """Offsets, aligned, such that requests that are alive in the same step do not overlap."""
    sizes = [aligned(request.bytes) for request in requests]
    conflicts = _conflicts(requests)
    best: list[int] = []
    best_order: list[int] = []
    for order in _orders(requests):
        offsets = _pack(sizes, conflicts, order)
        if not best or _top(sizes, offsets) < _top(sizes, best):
            best, best_order = offsets, order
        if _top(sizes, best) <= lower_bound:
            return best
    order = best_order
    offsets = best
    for _ in range(ROUNDS if requests else 0):
        top = _top(sizes, offsets)
        highest = [i for i in order if offsets[i] + sizes[i] == top]
        first = set(highest)
        order = highest + [i for i in order if i not in first]
        offsets = _pack(sizes, conflicts, order)
        if _top(sizes, offsets) < _top(sizes, best):
            best, best_order = offsets, order
        if _top(sizes, best) <= lower_bound:
            return best
    return _shuffled(sizes, conflicts, best_order, lower_bound) if requests else best


def _shuffled(sizes: Sequence[int], conflicts: list[list[int]], order: list[int], lower_bound: int) -> list[int]:
    """The best packing of random changes to `order`: something that lies above the bound comes earlier, and every other
    time two requests change places. Changes that do no harm stay. The same for the same requests.
    """
    rng = random.Random(0)

    def below(count: int) -> int:
        return int(rng.random() * count)

    offsets = _pack(sizes, conflicts, order)
    for _ in range(min(SHUFFLES // len(sizes), MOST_SHUFFLES)):
        high = [i for i in order if offsets[i] + sizes[i] > lower_bound]
        if not high:
            break
        changed = list(order)
        place = changed.index(high[below(len(high))])
        first = below(place)
        changed.insert(first, changed.pop(place))
        if below(2):
            a, b = below(len(order)), below(len(order))
            changed[a], changed[b] = changed[b], changed[a]
            first = min(first, a, b)
        packed = _repack(sizes, conflicts, changed, offsets, first)
        if packed is not None:
            order, offsets = changed, packed
    return offsets


def _orders(requests: Sequence[Request]) -> list[list[int]]:
    def steps(i: int) -> int:
        return requests[i].life.end - requests[i].life.start + 1

    everything = range(len(requests))
    return [
        sorted(everything, key=lambda i: (-requests[i].bytes, -steps(i), i)),
        sorted(everything, key=lambda i: (-steps(i) * requests[i].bytes, i)),
        sorted(everything, key=lambda i: (-steps(i), -requests[i].bytes, i)),
        sorted(everything, key=lambda i: (requests[i].life.start, -requests[i].bytes, i)),
        sorted(everything, key=lambda i: (-requests[i].life.end, -requests[i].bytes, i)),
    ]


def _conflicts(requests: Sequence[Request]) -> list[list[int]]:
    """For every request those alive in one of its steps; empty ones conflict with nobody."""
    conflicts: list[list[int]] = [[] for _ in requests]
    active: list[int] = []
    for i in sorted(range(len(requests)), key=lambda i: requests[i].life.start):
        if requests[i].bytes == 0:
            continue
        active = [j for j in active if requests[j].life.end >= requests[i].life.start]
        for j in active:
            conflicts[i].append(j)
            conflicts[j].append(i)
        active.append(i)
    return conflicts


def _pack(sizes: Sequence[int], conflicts: list[list[int]], order: Sequence[int]) -> list[int]:
    """First fit: every request at the lowest aligned offset that is free for its whole lifetime."""
    placed: list[tuple[int, int] | None] = [None] * len(sizes)
    for i in order:
        placed[i] = _lowest_gap(sizes[i], conflicts[i], placed)
    return [span[0] for span in placed]


def _repack(
    sizes: Sequence[int], conflicts: list[list[int]], order: Sequence[int], offsets: list[int], first: int
) -> list[int] | None:
    """`_pack` of an order that differs from that of `offsets` from `first` on; None if it takes more memory."""
    most = _top(sizes, offsets)
    placed: list[tuple[int, int] | None] = [None] * len(sizes)
    for i in order[:first]:
        placed[i] = offsets[i], offsets[i] + sizes[i]
    for i in order[first:]:
        placed[i] = span = _lowest_gap(sizes[i], conflicts[i], placed)
        if span[1] > most:
            return None
    return [span[0] for span in placed]


def _lowest_gap(size: int, conflicts: list[int], placed: Sequence[tuple[int, int] | None]) -> tuple[int, int]:
    offset = 0
    for low, high in sorted([span for j in conflicts if (span := placed[j]) is not None]):
        if offset + size <= low:
            break
        if high > offset:
            offset = high
    return offset, offset + size


def _top(sizes: Sequence[int], offsets: Sequence[int]) -> int:
    return max((offset + size for size, offset in zip(sizes, offsets, strict=True)), default=0)
