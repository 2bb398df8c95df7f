"""Gains that overlap: a model fitted to whole schemes, and the search that it leads."""

import itertools
import math

import numpy as np
import pytest

from edgec.compiler.sparse.candidates import Weight
from edgec.compiler.sparse.fit_plans import Fitted, PlanFitter
from edgec.compiler.sparse.gain_model import GainModel
from edgec.compiler.sparse.rivals import other_sums
from edgec.compiler.sparse.search import Levels, Problem
from edgec.compiler.sparse.whole_schemes import WholeSchemes

FOLDS = 4
BLOCKS, IN_BLOCK = 5, 3
SHARES = [(0.0, 1.0)] * (BLOCKS * IN_BLOCK)


def test_a_sum_is_fitted_to_whole_schemes():
    """Noisy gains of random schemes of 20 weights and a depth; alone, the weights seemed to gain the opposite."""
    rng = np.random.default_rng(0)
    depth, weights = np.linspace(0, 2, 6), rng.uniform(0, 1, 20)
    alone = Problem((tuple(depth), *((0.0, 1 - gain) for gain in weights)))
    true = Problem((tuple(depth), *((0.0, gain) for gain in weights)))
    model = GainModel(alone, [(0.0, 1.0)] * 20)
    for number in range(80):
        levels = (int(rng.integers(0, 6)), *rng.integers(0, 2, 20).tolist())
        fold = number % FOLDS
        model.observe(levels, true.gain(levels) + 5 * fold + 0.1 * rng.standard_normal(), fold)
    likely = model.likely()
    found = np.array([gene[1] for gene in likely.genes[1:]])
    assert np.corrcoef(found, weights)[0, 1] > 0.95
    assert likely.genes[0] == pytest.approx(depth, abs=0.5)
    drawn = np.array([[gene[1] for gene in model.drawn(rng).genes[1:]] for _ in range(200)])
    assert drawn.mean(axis=0) == pytest.approx(found, abs=0.05)
    assert (np.abs(weights - found) < 6 * drawn.std(axis=0) + 0.05).all() and (drawn.std(axis=0) < 0.2).all()


def test_before_anything_was_measured_gains_alone_count():
    alone = Problem(((0.0, 0.5), (0.0, 0.2, 0.4), (0.0, -0.1, -0.2)))
    model = GainModel(alone, [(0.0, 0.5, 1.0)] * 2)
    for found, expected in zip(model.likely().genes, alone.genes, strict=True):
        assert found == pytest.approx(expected)


class Planted:
    """Blocks of three weights, of which one in each gains almost all that the whole block can: trained together, the
    others add little, though alone each gains as much. The last blocks gain more alone, all of them the same together.
    """

    def __init__(self, noise: float = 0.0):
        rng = np.random.default_rng(7)
        self.sizes = rng.uniform(0.8, 1.2, BLOCKS * IN_BLOCK)
        self.alone = np.repeat(np.linspace(0.2, 1.0, BLOCKS), IN_BLOCK) * rng.uniform(0.9, 1.1, BLOCKS * IN_BLOCK)
        self.noise, self.budget, self.measured = noise, 5.0, 0
        self.problem = Problem(((0.0, 0.1), *(tuple(gain * share for share in SHARES[0]) for gain in self.alone)))
        self.rivals: list[Problem] = []

    def bytes(self, levels: Levels) -> float:
        return float(self.sizes @ [share[level] for share, level in zip(SHARES, levels[1:], strict=True)])

    def gain(self, levels: Levels) -> float:
        shares = np.array([share[level] for share, level in zip(SHARES, levels[1:], strict=True)])
        blocks = shares.reshape(BLOCKS, IN_BLOCK)
        return float((blocks.max(axis=1) + 0.05 * blocks.sum(axis=1)).sum())

    def loss(self, levels: Levels, lr: float, fold: int) -> float:
        self.measured += 1
        seed = [fold, *levels]
        noise = self.noise * np.random.default_rng(seed).standard_normal()
        return 20 + 2.0 * fold - self.gain(levels) + abs(math.log2(lr)) + noise

    def planned(self, levels: Levels) -> int | None:
        size = int(1000 * self.bytes(levels))
        return size if size <= 1000 * self.budget else None

    def searched(self, proposals: int = 96, diverging: int | None = None) -> tuple[Fitted, Fitted, float]:
        """What the sum of gains finds, and what whole schemes do, at which rate."""

        def loss_of(levels: Levels, lr: float, fold: int) -> float:
            return math.inf if diverging is not None and levels[diverging] else self.loss(levels, lr, fold)

        def going_on(stage: str, done: int, total: int) -> bool:
            assert 0 <= done < total
            return stage != "improve schemes" or done < proposals

        fitter = PlanFitter(lambda levels: 1000 * self.bytes(levels), [], self.planned)
        first = fitter.fit(self.problem, int(1000 * self.budget))
        whole = WholeSchemes(fitter, GainModel(self.problem, SHARES), loss_of, FOLDS, going_on, seed=0)
        whole.explore([first], 2.0)
        return first, *whole.choose([2.0, 4.0, 1.0])


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_overlapping_gains_are_found_out(noise):
    """The sum of gains alone takes all weights of the last blocks; the best takes one of every block."""
    planted = Planted(noise)
    first, found, lr = planted.searched()
    best = BLOCKS * 1.05
    assert planted.gain(first.levels) < 0.6 * best
    assert planted.gain(found.levels) > 0.9 * best
    assert planted.planned(found.levels) == found.bytes <= 1000 * planted.budget
    assert lr == 1.0
    assert planted.measured < 240


def test_a_search_is_the_same_again():
    assert Planted(0.3).searched(30) == Planted(0.3).searched(30)


def test_where_there_is_no_time_the_sum_decides():
    planted = Planted()
    fitter = PlanFitter(lambda levels: 1000 * planted.bytes(levels), [], planted.planned)
    first = fitter.fit(planted.problem, int(1000 * planted.budget))
    model = GainModel(planted.problem, SHARES)
    whole = WholeSchemes(fitter, model, planted.loss, FOLDS, lambda *stage: False, seed=0)
    whole.explore([first], 0.5)
    assert whole.choose([0.5, 1.0]) == (first, 0.5)
    assert planted.measured == 2  # and the head, which nothing is worse than


def test_a_rival_that_there_is_no_time_to_plan_is_not_searched_for():
    planted, asked = Planted(), []

    def account(levels: Levels) -> float:
        asked.append(levels)
        return 1000 * planted.bytes(levels)

    fitter = PlanFitter(account, [], planted.planned, going_on=lambda done, total: done < total)
    best = fitter.fit(planted.problem, int(1000 * planted.budget))
    assert best.gain > 0 and asked
    asked.clear()
    assert fitter.rival(planted.problem) is None and not asked


def test_what_diverges_is_not_chosen():
    """A weight whose training diverges seems to gain most."""
    planted = Planted()
    planted.problem = Problem((planted.problem.genes[0], (0.0, 10.0), *planted.problem.genes[2:]))
    first, found, _ = planted.searched(diverging=1)
    assert first.levels[1] and not found.levels[1]


def test_proposals_move_the_limit_to_what_has_plans():
    """Plans need half as much again as the account says: `fit` finds out, and proposals stay there."""
    planted = Planted()
    rng = np.random.default_rng(0)
    asked = []

    def planned(levels: Levels) -> int | None:
        asked.append(levels)
        size = int(1500 * planted.bytes(levels))
        return size if size <= 1000 * planted.budget else None

    fitter = PlanFitter(lambda levels: 1000 * planted.bytes(levels), [], planned)
    fitter.fit(planted.problem, int(1000 * planted.budget))
    asked.clear()
    sums = (Problem(((0.0, 0.1), *((0.0, g) for g in rng.uniform(0, 1, len(SHARES))))) for _ in range(60))
    found = [fitter.proposal(one) for one in sums]
    fitted = [one for one in found if one is not None]
    assert len(asked) == len(set(asked)) and 20 <= len(fitted) < len(found)
    assert all(one.bytes <= 1000 * planted.budget for one in fitted)
    assert np.mean([one.bytes for one in fitted]) > 0.88 * 1000 * planted.budget
    assert fitter.proposal(planted.problem) is None or len(asked) == len(set(asked))


def test_rivals_put_roles_first():
    """Each sum ranks the weights of one role before all others, and biases of all layers before any weight."""
    roles = ["first", "second", "third"] * 4 + ["stem"]
    weights = [Weight(f"w{number}", (10,), None, role=role) for number, role in enumerate(roles)]
    problem = Problem(((0.0, 0.1, 0.2), *((0.0, 0.5) for _ in weights)))
    led = other_sums(problem, weights)[1:4]
    assert len(led) == 3  # one weight alone is no role
    for role, one in zip(("first", "second", "third"), led, strict=True):
        gains = [gene[-1] for gene in one.genes[1:]]
        pairs = itertools.product(range(len(weights)), repeat=2)
        assert all(gains[i] > gains[j] for i, j in pairs if roles[i] == role and roles[j] != role)
        assert one.genes[0][-1] > sum(gains) > one.genes[0][0]
