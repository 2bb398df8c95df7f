"""Which of several ways to do the same is fastest: timed in turns, losers dropped early, a winner only beyond noise.

Times are of the thread, so that a machine with other work to do does not count its pauses. Neighbours still take caches
and memory; what ran in one round met the same ones, so rounds are compared with themselves: a way wins by the median
of its ratios to the first one, and only if most rounds agree.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_ROUNDS, _LEAST_ROUNDS = 25, 11
_LEAST_SECONDS = 100e-6  # of one timing: shorter runs are repeated
# After so many rounds, ways slower than the best by more than the factor are dropped.
_CUTS = {3: 1.3, 6: 1.1, 10: 1.05, 16: 1.03}
_LEAST_GAIN = 1.03  # what is less may be where the code happens to lie
_AGREEING = 0.8  # of the rounds

Clock = Callable[[], float]


@dataclass(frozen=True)
class Outcome:
    """`winner` is an index into the ways; 0, the usual one, unless another is faster beyond noise.

    gain: the usual way's time over the winner's, at least 1. seconds: median of the usual way.
    """

    winner: int
    gain: float
    seconds: float


def race(ways: Sequence[Callable[[], None]], before: Callable[[], None], clock: Clock = time.thread_time) -> Outcome:
    """Run `ways` in turns, each after `before`, which is not timed."""
    times: list[list[float]] = [[] for _ in ways]
    alive = list(range(len(ways)))

    def run(way: int, repeats: int) -> float:
        start = clock()
        for _ in range(repeats):
            ways[way]()
        return (clock() - start) / repeats

    run(0, 1)
    repeats = max(1, round(_LEAST_SECONDS / max(run(0, 1), 1e-7)))
    for done in range(1, _ROUNDS + 1):
        for way in alive[done % len(alive) :] + alive[: done % len(alive)]:
            before()
            times[way].append(run(way, repeats))
        if done in _CUTS:
            alive = _survivors(times, alive, _CUTS[done])
        if alive == [0] and done >= _LEAST_ROUNDS:
            break
    return _judge(times, alive)


def _survivors(times: Sequence[Sequence[float]], alive: Sequence[int], factor: float) -> list[int]:
    medians = {way: statistics.median(times[way]) for way in alive}
    least = min(medians.values())
    return [way for way in alive if way == 0 or medians[way] <= factor * least]


def _judge(times: Sequence[Sequence[float]], alive: Sequence[int]) -> Outcome:
    usual = statistics.median(times[0])
    best = Outcome(0, 1.0, usual)
    for way in alive[1:]:  # the usual one is never dropped
        ratios = sorted(first / own for first, own in zip(times[0], times[way], strict=True))
        gain, agreed = statistics.median(ratios), ratios[int((1 - _AGREEING) * len(ratios))]
        if gain >= _LEAST_GAIN and agreed > 1 and gain > best.gain:
            best = Outcome(way, gain, usual)
    return best
