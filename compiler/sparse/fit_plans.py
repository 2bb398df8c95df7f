"""From the fast account to real plans: the scheme of greatest gain whose plan keeps to the budget.

The account leaves out what a plan does to save memory, and what it needs besides. So what the account may come to is no
given number: it is raised while the best scheme within it has a plan, lowered while it has none, and halved in between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgec.compiler.sparse.search import Bound, Found, Levels, Problem, search

PLANS, STEPS_UP = 10, 6
_GROW, _CLOSE = 1.4, 1.02


@dataclass(frozen=True)
class Fitted:
    """`bytes`: of the plan. `exact`: within the account's limit nothing gains more."""

    levels: Levels
    bytes: int
    gain: float
    exact: bool


def fit_plans(
    problem: Problem,
    account: Callable[[Levels], float],
    bounds: Sequence[Bound],
    planned: Callable[[Levels], int | None],
    *,
    budget: int,
    seed: int = 0,
    going_on: Callable[[int, int], bool] = lambda done, total: True,
) -> Fitted:
    """`account` of levels in bytes, other `bounds`, and the bytes of a real plan, None where the budget has none.

    Level 0 of everything must have a plan. `going_on` is asked before every plan, with how many were made of how many
    at most.
    """
    return _Fitting(problem, account, bounds, planned, seed, going_on).run(float(budget))


class _Fitting:
    def __init__(
        self,
        problem: Problem,
        account: Callable[[Levels], float],
        bounds: Sequence[Bound],
        planned: Callable[[Levels], int | None],
        seed: int,
        going_on: Callable[[int, int], bool],
    ):
        self._problem, self._account, self._bounds, self._planned = problem, account, bounds, planned
        self._seed, self._going_on = seed, going_on
        self._known: dict[Levels, int | None] = {}

    def run(self, limit: float) -> Fitted:
        least = (0,) * len(self._problem.genes)
        size = self._size(least)
        assert size is not None
        best = Fitted(least, size, 0.0, exact=False)
        low = high = None
        for _ in range(PLANS):
            if low and high and high <= low * _CLOSE:
                break
            found = self._search(limit)
            size = None if found is None else self._size(found.levels)
            if found is not None and size is None:
                high = limit
            else:
                low = limit
                if found is not None and found.gain > best.gain:
                    best = Fitted(found.levels, size, found.gain, found.exact)
                if found is not None and found.gain >= self._within_bounds:
                    break
            limit = limit * _GROW if high is None else limit / _GROW if low is None else (low + high) / 2
            if not self._going_on(len(self._known), PLANS + STEPS_UP):
                return best
        return self._filled(best)

    def _search(self, limit: float) -> Found | None:
        return search(self._problem, [Bound(self._account, limit), *self._bounds], seed=self._seed)

    @property
    def _within_bounds(self) -> float:
        """What could be gained if bytes were no matter."""
        found = search(self._problem, self._bounds, seed=self._seed)
        return 0.0 if found is None else found.gain

    def _size(self, levels: Levels) -> int | None:
        if levels not in self._known:
            self._known[levels] = self._planned(levels)
        return self._known[levels]

    def _filled(self, best: Fitted) -> Fitted:
        """Single genes raised where the budget has room, the one that gains most first."""
        for _ in range(STEPS_UP):
            ups = [up for up in self._ups(best.levels) if up not in self._known]
            if not ups or not self._going_on(len(self._known), PLANS + STEPS_UP):
                break
            tried = max(ups, key=self._problem.gain)
            size = self._size(tried)
            if size is not None:
                best = Fitted(tried, size, self._problem.gain(tried), exact=False)
        return best

    def _ups(self, levels: Levels) -> list[Levels]:
        ups = [
            (*levels[:i], level, *levels[i + 1 :])
            for i, gene in enumerate(self._problem.genes)
            for level in range(len(gene))
            if gene[level] > gene[levels[i]]
        ]
        return [up for up in ups if all(bound.oracle(up) <= bound.limit for bound in self._bounds)]
