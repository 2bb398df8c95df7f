"""The search proper: of all schemes within some bounds the one of greatest expected gain (Lin et al. 2022, eq. 5).

    maximise    gain(biases of the last k layers) + sum over weights i of gain(i, ratio of its channels)
    subject to  oracle(scheme) <= limit, for bytes and perhaps time

Pure: gains come in measured or estimated, bounds as functions. Both may only grow with what is trained, which is what
lets branch and bound cut. Where it could not look at everything within its node limit, a population evolves, and it
begins again from the best of that.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

Levels = tuple[int, ...]

POPULATION, GENERATIONS, NODES = 48, 50, 4_000


@dataclass(frozen=True)
class Problem:
    """`genes[i][level]`: what level `level` of gene i gains; level 0 is the least and gains 0.

    The first gene is the depth of biases, the others are weights, whose levels are ratios.
    """

    genes: tuple[tuple[float, ...], ...]

    def gain(self, levels: Sequence[int]) -> float:
        return float(sum(gene[level] for gene, level in zip(self.genes, levels, strict=True)))


@dataclass(frozen=True)
class Bound:
    """`oracle` of the levels of a scheme must not exceed `limit`."""

    oracle: Callable[[Levels], float]
    limit: float


@dataclass(frozen=True)
class Found:
    """`exact`: nothing within the bounds gains more."""

    levels: Levels
    gain: float
    exact: bool


def search(problem: Problem, bounds: Sequence[Bound], *, seed: int = 0, nodes: int = NODES) -> Found | None:
    """None where not even level 0 of everything is within the bounds."""
    allowed = _Allowed(bounds)
    least = (0,) * len(problem.genes)
    if not allowed(least):
        return None
    evolution = _Evolution(problem, allowed, seed)
    found = _BranchAndBound(problem, allowed, evolution.climbed(least), nodes).run()
    if found.exact:
        return found
    return _BranchAndBound(problem, allowed, evolution.run(found.levels), nodes).run()


class _Allowed:
    """Whether levels are within all bounds; each is asked once."""

    def __init__(self, bounds: Sequence[Bound]):
        self._bounds, self._known = bounds, {}

    def __call__(self, levels: Levels) -> bool:
        if levels not in self._known:
            self._known[levels] = all(bound.oracle(levels) <= bound.limit for bound in self._bounds)
        return self._known[levels]


class _Evolution:
    """A population of schemes within the bounds: crossover, mutation, and what breaks a bound gives something up."""

    def __init__(self, problem: Problem, allowed: _Allowed, seed: int):
        self._problem, self._allowed, self._random = problem, allowed, np.random.default_rng(seed)
        self._tops = np.array([len(gene) for gene in problem.genes])

    def run(self, good: Levels) -> Levels:
        """From what is known to be good."""
        some = [self._repaired(self._random.integers(0, self._tops)) for _ in range(POPULATION - 1)]
        alive = self._best({good, *some})
        for _ in range(GENERATIONS):
            children = {self._repaired(self._child(alive)) for _ in range(POPULATION)}
            alive = self._best({*alive, *children})
        return self.climbed(alive[0])

    def _best(self, levels: Iterable[Levels]) -> list[Levels]:
        return sorted(levels, key=lambda one: (-self._problem.gain(one), sum(one), one))[:POPULATION]

    def _child(self, alive: list[Levels]) -> np.ndarray:
        # The better half of two picks, twice: the list is sorted.
        first, second = (alive[self._random.integers(0, len(alive), 2).min()] for _ in range(2))
        child = np.where(self._random.random(len(self._tops)) < 0.5, first, second)
        changed = self._random.random(len(self._tops)) < 1.5 / len(self._tops)
        return np.where(changed, self._random.integers(0, self._tops), child)

    def _repaired(self, levels: np.ndarray) -> Levels:
        """Within the bounds, and without what loses."""
        genes = zip(self._problem.genes, levels.tolist(), strict=True)
        mine = [max(range(level + 1), key=gene.__getitem__) for gene, level in genes]
        if self._allowed(tuple(mine)):
            return tuple(mine)
        # Give genes up in a random order, as few as will do; the last of them perhaps not wholly.
        order = self._random.permutation([i for i, level in enumerate(mine) if level]).tolist()

        def without(count: int) -> list[int]:
            given_up = set(order[:count])
            return [0 if i in given_up else level for i, level in enumerate(mine)]

        count = bisect.bisect_left(range(len(order)), True, key=lambda n: self._allowed(tuple(without(n))))
        last = order[count - 1]
        kept = without(count)
        for level in range(mine[last], 0, -1):
            partly = (*kept[:last], level, *kept[last + 1 :])
            if self._allowed(partly):
                return partly
        return tuple(kept)

    def climbed(self, levels: Levels) -> Levels:
        """One gene at a time, or one at the cost of another, as long as that gains."""
        while True:
            better = max(self._neighbours(levels), key=lambda one: (self._problem.gain(one), one), default=levels)
            if self._problem.gain(better) <= self._problem.gain(levels):
                return levels
            levels = better

    def _neighbours(self, levels: Levels) -> Iterable[Levels]:
        gain = self._problem.gain(levels)
        for i, gene in enumerate(self._problem.genes):
            for level in range(len(gene)):
                raised = (*levels[:i], level, *levels[i + 1 :])
                if gene[level] <= gene[levels[i]]:
                    continue
                if self._allowed(raised):
                    yield raised
                    continue
                for j in (j for j, other in enumerate(levels) if other and j != i):
                    swapped = (*raised[:j], raised[j] - 1, *raised[j + 1 :])
                    if self._problem.gain(swapped) > gain and self._allowed(swapped):
                        yield swapped


class _BranchAndBound:
    """Depth first over genes, the one that can gain most first; a branch that cannot gain more than the best is cut."""

    def __init__(self, problem: Problem, allowed: _Allowed, best: Levels, nodes: int):
        self._problem, self._allowed, self._left = problem, allowed, nodes
        self._best, self._gain = best, problem.gain(best)
        self._order = sorted(range(len(problem.genes)), key=lambda i: -max(problem.genes[i]))
        most = [max(problem.genes[i]) for i in self._order]
        self._rest = [sum(most[place:]) for place in range(len(most) + 1)]

    def run(self) -> Found:
        self._visit([0] * len(self._order), 0, 0.0)
        return Found(self._best, self._gain, exact=self._left > 0)

    def _visit(self, levels: list[int], place: int, gain: float) -> None:
        if gain > self._gain:
            self._best, self._gain = tuple(levels), gain
        if place == len(self._order) or gain + self._rest[place] <= self._gain or self._left <= 0:
            return
        i = self._order[place]
        gene = self._problem.genes[i]
        for level in sorted(range(len(gene)), key=lambda one: -gene[one]):
            if gain + gene[level] + self._rest[place + 1] <= self._gain:
                break
            self._left -= 1
            levels[i] = level
            if self._allowed(tuple(levels)):
                self._visit(levels, place + 1, gain + gene[level])
            levels[i] = 0
