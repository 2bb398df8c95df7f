"""From the fast account to real plans: schemes of great gain whose plans keep to the budget.

The account leaves out what a plan does to save memory, and what it needs besides. So what the account may come to is no
given number: it is raised while the best scheme within it has a plan, lowered while it has none, and halved in between.
Then single levels are raised where there is room. Other gains lead from the same limit to rivals, and to proposals that
keep moving it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgec.compiler.sparse.search import Bound, Found, Levels, Problem, search

CALIBRATING, STEPS_UP = 8, 2
PLANS = CALIBRATING + STEPS_UP  # of `fit`
_GROW, _CLOSE = 1.3, 1.02
_RIVALS = (1.0, 0.96, 0.88, 0.75)  # of the limit, for a rival
_UP, _DOWN = 1.01, 0.98  # of the limit, by a proposal
_FEW_NODES = 1_500


@dataclass(frozen=True)
class Fitted:
    """`bytes`: of the plan. `exact`: within the account's limit nothing gains more."""

    levels: Levels
    bytes: int
    gain: float
    exact: bool


class PlanFitter:
    """`account` of levels in bytes, other `bounds`, and `planned`: the bytes of a real plan, None where there is none.

    Level 0 of everything must have a plan. `going_on` is asked before every plan, with how many were made of
    how many without rivals. UserError, and whatever else, as `planned`.
    """

    def __init__(
        self,
        account: Callable[[Levels], float],
        bounds: Sequence[Bound],
        planned: Callable[[Levels], int | None],
        *,
        seed: int = 0,
        going_on: Callable[[int, int], bool] = lambda done, total: True,
    ):
        self._account, self._bounds, self._planned = account, bounds, planned
        self._seed, self._going_on = seed, going_on
        self._known: dict[Levels, int | None] = {}
        self._limit = 0.0

    def fit(self, problem: Problem, budget: int) -> Fitted:
        """What gains most of all that has a plan, as far as was looked."""
        best, self._limit = self._calibrated(problem, float(budget), CALIBRATING)
        return self._raised(problem, best)

    def rival(self, problem: Problem) -> Fitted | None:
        """The best for other gains within what `fit` found to be the account's limit, or somewhat less."""
        for part in _RIVALS:
            if not self._going_on(PLANS, PLANS):
                break
            found = search(problem, [Bound(self._account, part * self._limit), *self._bounds], nodes=_FEW_NODES)
            if found is not None and (fitted := self._fitted(found)) is not None:
                return fitted
        return None

    def proposal(self, problem: Problem) -> Fitted | None:
        """The best for other gains within a limit that every proposal moves: up if it has a plan, down if it has none.
        None if it has none, or was planned before.
        """
        found = search(problem, [Bound(self._account, self._limit), *self._bounds], nodes=_FEW_NODES)
        if found is None or found.levels in self._known:
            return None
        fitted = self._fitted(found)
        self._limit *= _DOWN if fitted is None else _UP
        return fitted

    def _calibrated(self, problem: Problem, limit: float, plans: int) -> tuple[Fitted, float]:
        """The best of some plans, and the largest limit that was seen to have one."""
        best = self._least(problem)
        most = search(problem, self._bounds, seed=self._seed)
        low = high = None
        for _ in range(plans):
            settled = low is not None and high is not None and high <= low * _CLOSE
            if settled or most is None or best.gain >= most.gain or not self._going_on(len(self._known), PLANS):
                break
            found = self._search(problem, limit)
            fitted = None if found is None else self._fitted(found)
            if found is None or fitted is not None:
                low = limit
            else:
                high = limit
            if fitted is not None and fitted.gain > best.gain:
                best = fitted
            limit = self._next(limit, low, high)
        return best, low or limit

    @staticmethod
    def _next(limit: float, low: float | None, high: float | None) -> float:
        if high is None:
            return limit * _GROW
        return limit / _GROW if low is None else (low + high) / 2

    def _least(self, problem: Problem) -> Fitted:
        least = (0,) * len(problem.genes)
        size = self._size(least)
        assert size is not None
        return Fitted(least, size, 0.0, exact=False)

    def _search(self, problem: Problem, limit: float) -> Found | None:
        return search(problem, [Bound(self._account, limit), *self._bounds], seed=self._seed)

    def _fitted(self, found: Found) -> Fitted | None:
        size = self._size(found.levels)
        return None if size is None else Fitted(found.levels, size, found.gain, found.exact)

    def _size(self, levels: Levels) -> int | None:
        if levels not in self._known:
            self._known[levels] = self._planned(levels)
        return self._known[levels]

    def _raised(self, problem: Problem, best: Fitted) -> Fitted:
        """Single genes raised, the one that gains most first."""
        for _ in range(STEPS_UP):
            ups = [up for up in self._ups(problem, best.levels) if up not in self._known]
            if not ups or not self._going_on(len(self._known), PLANS):
                break
            tried = max(ups, key=problem.gain)
            size = self._size(tried)
            if size is not None:
                best = Fitted(tried, size, problem.gain(tried), exact=False)
        return best

    def _ups(self, problem: Problem, levels: Levels) -> list[Levels]:
        ups = [
            (*levels[:i], level, *levels[i + 1 :])
            for i, gene in enumerate(problem.genes)
            for level in range(len(gene))
            if gene[level] > gene[levels[i]]
        ]
        return [up for up in ups if all(bound.oracle(up) <= bound.limit for bound in self._bounds)]
