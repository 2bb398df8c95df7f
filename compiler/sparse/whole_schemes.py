"""From gains of parts to whole schemes that were measured: a search in which each measurement tells where to look next.

`explore` measures schemes that a fitted sum of gains (`gain_model.py`) proposes, on one fold of the data after another;
`choose` has the best of them run on every fold, and at other learning rates, and takes the one of least loss.
Pure: plans and losses come in as functions.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from edgec.compiler.sparse.fit_plans import Fitted, PlanFitter
from edgec.compiler.sparse.gain_model import GainModel
from edgec.compiler.sparse.search import Levels

COMPARE = "compare the best schemes"
PROPOSALS, FINALISTS = 96, 4
_SURE, _DRAWS = 2, 3  # folds of the first schemes; so many gains are drawn before a proposal is given up

# The loss of levels at a rate, on a fold; infinite where the run diverges.
LossOf = Callable[[Levels, float, int], float]
# From a loss by rate, and the first rate, to one of least loss.
Uphill = Callable[[Callable[[float], float], float], float]
GoingOn = Callable[[str, int, int], bool]  # stage, how many are done, of how many -> whether there is time for one more


class WholeSchemes:
    """Of `fitter`'s schemes those of least loss on `folds` folds. `model` knows what parts gain alone."""

    def __init__(self, fitter: PlanFitter, model: GainModel, loss_of: LossOf, folds: int, going_on: GoingOn, seed: int):
        self._fitter, self._model, self._loss_of = fitter, model, loss_of
        self._folds, self._going_on = folds, going_on
        self._random = np.random.default_rng(seed)
        self._fitted: dict[Levels, Fitted] = {}
        self._losses: dict[tuple[Levels, int], float] = {}

    def explore(self, first: Iterable[Fitted], lr: float) -> None:
        """Measure these, and what their losses lead to."""
        known = list({one.levels: one for one in first}.values())
        twice = [(one, fold) for fold in range(min(_SURE, self._folds)) for one in known]
        for number, (one, fold) in enumerate(twice):
            if self._fitted and not self._going_on("compare schemes", number, len(twice)):
                return
            self._measure(one, lr, fold)
        for number in range(PROPOSALS):
            if not self._going_on("improve schemes", number, PROPOSALS):
                return
            proposal = self._proposal(likely=number % 2 == 1)
            if proposal is not None:
                self._measure(proposal, lr, number // 2 % self._folds)

    def best_rate(self, first: Sequence[Fitted], lr: float, uphill: Uphill) -> float:
        """At which the best of these learn best, the best being those of least loss at `lr`."""
        best = sorted(first, key=lambda one: self._loss_of(one.levels, lr, 0))[: self._folds - 1]

        def loss_at(rate: float) -> float:
            return statistics.fmean(self._loss_of(one.levels, rate, fold) for fold, one in enumerate(best))

        return uphill(loss_at, lr)

    def choose(self, rates: Sequence[float]) -> tuple[Fitted, float]:
        """The scheme and the rate; the first of `rates` is that of `explore`."""
        usual, *others = rates
        finalists = self._ranked()[:FINALISTS]
        if not self._going_on(COMPARE, 0, 1):
            return finalists[0], usual
        arms = [(one, usual) for one in finalists] + [(one, lr) for one in finalists[:2] for lr in others]
        losses: dict[int, list[float]] = {number: [] for number in range(len(arms))}
        for fold in range(self._folds):
            found = []
            for number, (one, lr) in enumerate(arms):
                done = fold * len(arms) + number
                if fold and not self._going_on(COMPARE, done, len(arms) * self._folds):
                    break
                found.append(self._loss_of(one.levels, lr, fold))
            if len(found) < len(arms):
                break
            for number, loss in enumerate(found):
                losses[number].append(loss)
        return arms[min(losses, key=lambda number: statistics.fmean(losses[number]))]

    def _proposal(self, *, likely: bool) -> Fitted | None:
        if likely and (found := self._fitter.proposal(self._model.likely())) is not None:
            return found
        draws = (self._fitter.proposal(self._model.drawn(self._random)) for _ in range(_DRAWS))
        return next((found for found in draws if found is not None), None)

    def _measure(self, one: Fitted, lr: float, fold: int) -> None:
        # What diverged, or came to say the same of everything, is no better than the head alone, however bad it is.
        head = (0,) * len(one.levels)
        loss, worst = self._loss_of(one.levels, lr, fold), self._loss_of(head, lr, fold)
        self._fitted[one.levels] = one
        self._losses[one.levels, fold] = min(loss, worst)
        if math.isfinite(worst):
            if loss > worst:
                self._model.observe(head, -worst, fold)
            self._model.observe(one.levels, -min(loss, worst), fold)

    def _ranked(self) -> list[Fitted]:
        """The best first: halfway between what was measured and what the sum of gains expects."""
        likely = self._model.likely()
        expected = {levels: likely.gain(levels) for levels in self._fitted}
        surprise: dict[Levels, list[float]] = {}
        for fold in range(self._folds):
            seen = {levels: loss for (levels, at), loss in self._losses.items() if at == fold and math.isfinite(loss)}
            found = {levels: -loss - expected[levels] for levels, loss in seen.items()}
            usual = statistics.median(found.values()) if found else 0.0
            for levels, difference in found.items():
                surprise.setdefault(levels, []).append(difference - usual)
        score = dict.fromkeys(self._fitted, -math.inf)
        score |= {levels: expected[levels] + 0.5 * statistics.fmean(found) for levels, found in surprise.items()}
        return [self._fitted[levels] for levels in sorted(score, key=lambda levels: (-score[levels], levels))]
