"""The search proper against trying everything; plans that keep to the budget; the account."""

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.compiler.passbase import Options, Phase, Trace
from edgec.compiler.pipeline import transform_module
from edgec.compiler.sparse.account import Account
from edgec.compiler.sparse.candidates import Candidates, find_candidates
from edgec.compiler.sparse.fit_plans import PlanFitter
from edgec.compiler.sparse.footprint import step_macs
from edgec.compiler.sparse.scheme import Scheme
from edgec.compiler.sparse.search import Bound, Levels, Problem, search
from edgec.compiler.train import Train
from edgec.graph.ir import Module
from edgec.tools.testing.tiny_nets import tiny_net

GAINS = st.floats(-1, 4, width=16)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Problem, list[Bound]]:
    """Up to five genes, and two bounds whose oracles grow with every level, one of them as saved activations do."""
    genes = draw(st.lists(st.lists(GAINS, min_size=1, max_size=4).map(lambda g: (0.0, *g)), min_size=1, max_size=5))
    steps = [[draw(st.integers(0, 9)) for _ in gene[1:]] for gene in genes]
    sizes = [list(itertools.accumulate([0, *step])) for step in steps]
    kept = [draw(st.integers(0, 20)) for _ in genes]
    floor = draw(st.integers(0, 30))

    def total(levels: Levels) -> float:
        return sum(size[level] for size, level in zip(sizes, levels, strict=True))

    def peak(levels: Levels) -> float:
        return max(floor, max(k * level for k, level in zip(kept, levels, strict=True))) + total(levels)

    return Problem(tuple(genes)), [Bound(total, draw(st.integers(0, 40))), Bound(peak, draw(st.integers(0, 80)))]


def best_of_all(problem: Problem, allowed: Callable[[Levels], bool]) -> float | None:
    every = itertools.product(*(range(len(gene)) for gene in problem.genes))
    return max((problem.gain(levels) for levels in every if allowed(levels)), default=None)


@given(problems())
@settings(max_examples=40)
def test_nothing_within_the_bounds_gains_more(case):
    problem, bounds = case
    found = search(problem, bounds)
    expected = best_of_all(problem, lambda levels: all(bound.oracle(levels) <= bound.limit for bound in bounds))
    if expected is None:
        assert found is None
        return
    assert found.exact and found.gain == pytest.approx(expected)
    assert all(bound.oracle(found.levels) <= bound.limit for bound in bounds)
    assert found == search(problem, bounds)


def test_evolution_alone_comes_close():
    """Where there is too much to look at, the bounds are kept and little is lost: a knapsack of 60 weights."""
    rng = np.random.default_rng(0)
    gains, sizes = rng.uniform(0.1, 1, 60), rng.uniform(0.1, 1, 60)
    problem = Problem(tuple((0.0, gain) for gain in gains))
    found = search(problem, [Bound(lambda levels: float(sizes @ np.array(levels)), 8.0)], nodes=1)
    fractional, room = 0.0, 8.0
    for i in np.argsort(-gains / sizes):
        taken = min(1.0, room / sizes[i])
        fractional, room = fractional + taken * gains[i], room - taken * sizes[i]
    assert not found.exact and sizes @ np.array(found.levels) <= 8.0
    assert found.gain > 0.98 * fractional


@given(problems(), st.integers(1, 60), st.floats(0.6, 1.8))
@settings(max_examples=25)
def test_what_is_found_has_a_plan(case, budget, factor):
    """Plans that take more or less than the account says, as real ones do."""
    problem, (account, _) = case

    def planned(levels: Levels) -> int | None:
        size = int(factor * account.oracle(levels))
        return size if size <= budget else None

    fitter = PlanFitter(account.oracle, [], planned)
    best, rival = fitter.fit(problem, budget), fitter.rival(problem)
    for found in (best, rival or best):
        assert planned(found.levels) == found.bytes <= budget
        assert found.gain == problem.gain(found.levels) >= 0


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.5])
def test_little_is_lost_where_the_account_is_wrong(factor):
    """12 weights of four ratios, whose plans have a floor that the account does not know."""
    rng = np.random.default_rng(1)
    shares = np.array([0, 0.125, 0.25, 0.5, 1.0])
    problem = Problem(tuple(tuple(gain * shares) for gain in rng.uniform(0, 1, 12)))
    sizes, saved = rng.uniform(1, 9, 12), rng.uniform(1, 9, 12)

    def account(levels: Levels) -> float:
        return float((sizes + saved) @ shares[list(levels)])

    def planned(levels: Levels) -> int | None:
        kept = float(saved @ shares[list(levels)])
        size = int(factor * max(20, kept) + sizes @ shares[list(levels)])
        return size if size <= budget else None

    budget = int(20 * factor + sizes.sum() / 2)
    found = PlanFitter(account, [], planned).fit(problem, budget)
    assert found.bytes <= budget
    best = search(problem, [Bound(lambda levels: planned(levels) or budget + 1, budget)])
    assert found.gain > 0.9 * best.gain


# -- what there is to search, and its account ------------------------------------------------------------------------


def candidates_of(module: Module) -> Candidates:
    found = []

    def look(name: str) -> None:
        if name == "mark_trainable":
            found.append(find_candidates(module.programs["infer"]))

    transform_module(module, Options(train=Train(update="head")), Trace(stop_after=Phase.SPECIALISE, observe=look))
    return found[0]


def stepped(net: str, update: Scheme) -> Module:
    module = tiny_net(net, size=32)
    transform_module(module, Options(train=Train(update=update)))
    return module


@pytest.fixture(scope="module")
def mcunet() -> tuple[Candidates, Account]:
    candidates = candidates_of(tiny_net("mcunet", size=32))
    everything = candidates.scheme(42, {weight.name: 1.0 for weight in candidates.weights})
    return candidates, Account(stepped("mcunet", everything).programs["train"], candidates, copies=1)


def test_candidates_of_a_classifier(mcunet):
    candidates, account = mcunet
    assert [weight.name for weight in candidates.weights] == [f"conv{i}.weight" for i in range(42)]
    assert candidates.head == {"fc.weight", "fc.bias"} and len(candidates.depths) == 43
    assert candidates.depths[2] == {"conv41.bias", "conv40.bias"}
    assert account.trainable == {weight.name for weight in candidates.weights}
    scheme = candidates.scheme(3, {"conv39.weight": 0.25, "conv3.weight": 1.0})
    assert scheme.biases == 3 and [rule.pattern for rule in scheme.weights] == ["conv3.weight", "conv39.weight"]


def test_roles_are_those_of_layers_in_a_block(mcunet):
    """Of an inverted bottleneck: widening, within channels, narrowing; the stem is alone, and does all at once."""
    roles = [weight.role for weight in mcunet[0].weights]
    (stem,), middle = set(roles[:1]), roles[3:]
    assert middle[0::3] == middle[:1] * 13 and middle[1::3] == middle[1:2] * 13 and middle[2::3] == middle[2:3] * 13
    assert len({stem, *middle[:3]}) == 4 and roles.count(stem) == 1


def test_channels_that_are_not_kept(mcunet):
    """A pointwise and a depthwise convolution: elements that multiply other channels."""
    pointwise, depthwise = mcunet[0].weights[3], mcunet[0].weights[4]
    assert pointwise.shape == (32, 8, 1, 1) and depthwise.shape == (32, 1, 3, 3)
    assert np.argwhere(~pointwise.others([1, 6]))[:, 1].tolist() == [1, 6] * 32
    assert set(np.argwhere(~depthwise.others([0, 31]))[:, 0]) == {0, 31}
    assert depthwise.others([0, 31]).sum() == 30 * 9


@pytest.mark.parametrize(
    ("depth", "ratios"), [(0, {}), (7, {}), (5, {"conv36.weight": 1.0}), (20, {"conv24.weight": 0.25})]
)
def test_account_of_multiply_adds(mcunet, depth, ratios):
    """That of layers by themselves is `step_macs`; the whole graph has a little more: biases, the loss."""
    candidates, account = mcunet
    graph = tiny_net("mcunet", size=32).programs["infer"]
    expected = step_macs(graph, candidates.scheme(depth, ratios))
    layers = expected.forward + expected.input_gradients + expected.weight_gradients
    assert account.figures(depth, ratios).macs == pytest.approx(layers, rel=0.02)


def test_account_grows_with_what_is_trained(mcunet):
    candidates, account = mcunet
    rng = np.random.default_rng(0)
    for _ in range(30):
        chosen = {weight.name: float(rng.choice(weight.ratios)) for weight in rng.choice(candidates.weights, 5)}
        depth = int(rng.integers(0, 42))
        less, more = account.figures(depth, dict(list(chosen.items())[:-1])), account.figures(depth + 1, chosen)
        pairs = zip(dataclasses.astuple(less), dataclasses.astuple(more), strict=True)
        assert all(a <= b for a, b in pairs)
