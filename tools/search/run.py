"""`edgec search` from end to end: estimate, measure, search, plan. See `compiler/sparse/search.md`."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgec import __version__
from edgec.backends.cache import cache_folder
from edgec.compiler.passbase import Phase, Trace
from edgec.compiler.pipeline import transform_module
from edgec.compiler.sparse.account import Account, Figures
from edgec.compiler.sparse.candidates import Candidates, Weight, find_candidates
from edgec.compiler.sparse.fit_plans import PlanFitter
from edgec.compiler.sparse.gain_model import GainModel
from edgec.compiler.sparse.rivals import other_sums
from edgec.compiler.sparse.scheme import CHANNELS, Scheme
from edgec.compiler.sparse.search import Bound, Levels, Problem
from edgec.compiler.sparse.whole_schemes import COMPARE, WholeSchemes
from edgec.compiler.train import Train
from edgec.graph.ir import Graph, Role
from edgec.graph.text import print_module
from edgec.runtime.dataset import Arrays, check_data
from edgec.runtime.format import Slot
from edgec.runtime.signature import Signature, TensorInfo
from edgec.tools.cli.console import located
from edgec.tools.request import Request
from edgec.tools.search.journal import Journal
from edgec.tools.search.measure import HELD_OUT, Outcome, split
from edgec.tools.search.measurements import RATE_FACTOR, Estimate, Measurements
from edgec.tools.search.planner import Planner, refuse_small
from edgec.tools.search.report import Contribution, Say, SearchProgress, SearchReport, Wish

# Of the time limit, until when each stage begins something new: a rate is chosen, gains are measured, the first schemes
# are planned, whole schemes are measured, the best of them are compared.
_CHOOSING_RATE, _MEASURING, _PLANNING, _EXPLORING, _CHOOSING = 0.15, 0.3, 0.5, 0.8, 0.95
_LEAST_PLANS = 4
# Steps of a run, unless they are given: so many that RUNS of them take half a second of multiply-adds for each of the
# time limit, at a pace that two cores keep to.
_PACE, _RUNS = 5e9, 60
_LEAST_STEPS, _MOST_STEPS, _MOST_EPOCHS = 30, 300, 20


def find_scheme(request: Request, data: Arrays, wish: Wish, say: Say | None = None) -> SearchReport:
    """UserError E0405 for a budget that not even the head can keep to, E0607 for data that does not fit or is too
    little, E0505 where the journal cannot be written, and all of `edgec.compile`.
    """
    search = _Search(request, data, wish, say or (lambda progress: None))
    try:
        return search.run()
    finally:
        search.measurements.close()


class _Search:
    def __init__(self, request: Request, data: Arrays, wish: Wish, say: Say):
        assert request.train is not None
        self._began = time.monotonic()
        self._wish, self._say = wish, say
        self._train = dataclasses.replace(request.train, update="head", memory_budget=None)
        self._request = dataclasses.replace(request, train=self._train)
        self._module = request.read()
        self._candidates = self._find_candidates()
        self._full = self._full_step()
        with located("--data"):
            split(data, check_data(_signature(self._full), data))  # said before a compilation rather than after
        self._account = Account(self._full, self._candidates, _copies(self._train))
        self._weights = [weight for weight in self._candidates.weights if weight.name in self._account.trainable]
        self._planner, self._again = Planner(self._request, self._module), "nothing"
        self._steps = wish.steps or self._affordable_steps(len(next(iter(data.values()))))
        self._journal = Journal(cache_folder() / "search" / f"{self._key(data)}.jsonl")
        self.measurements = Measurements(
            self._request,
            self._module,
            self._candidates,
            data,
            self._journal,
            self._tell,
            steps=self._steps,
            seed=wish.seed,
            threads=wish.threads,
        )

    # -- what there is ----------------------------------------------------------------------------------------------

    def _find_candidates(self) -> Candidates:
        module, found = self._module.clone(), []

        def look(name: str) -> None:
            if name == "mark_trainable":
                found.append(find_candidates(module.programs["infer"]))

        transform_module(module, self._request.options, Trace(stop_after=Phase.SPECIALISE, observe=look))
        return found[0]

    def _full_step(self) -> Graph:
        train = dataclasses.replace(
            self._train, update=self._candidates.everything, accumulate=1, clip_norm=None, guard="loss"
        )
        module = self._module.clone()
        transform_module(module, dataclasses.replace(self._request.options, train=train))
        return module.programs["train"]

    def _affordable_steps(self, samples: int) -> int:
        (batch, *_), *_ = (leaf.type.shape for leaf in self._full.by_role(Role.INPUT))
        epochs = _MOST_EPOCHS * samples // (batch * self._train.accumulate)
        macs = self._account.figures(len(self._candidates.depths) - 1, {w.name: 1.0 for w in self._weights}).macs
        steps = self._wish.seconds / 2 * _PACE / _RUNS / max(macs * self._train.accumulate, 1.0)
        return max(1, int(min(max(steps, _LEAST_STEPS), _MOST_STEPS, epochs)))

    def _key(self, data: Arrays) -> str:
        """Of all that runs depend on."""
        digest = hashlib.sha256(f"edgec {__version__}\n{print_module(self._module)}".encode())
        images = sorted(self._request.images.items())
        digest.update(repr((self._train, self._request.new_head, images, self._steps, self._wish.seed)).encode())
        for name, array in sorted(data.items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        return digest.hexdigest()[:32]

    # -- the whole --------------------------------------------------------------------------------------------------

    def run(self) -> SearchReport:
        wish, measured = self._wish, self.measurements
        if self._planned(Scheme("head")) is None:
            self._again = "values"  # slower steps, but steps
            if self._planned(Scheme("head")) is None:
                raise refuse_small(wish.budget, self._smallest())
        floor = self._smallest() - self._account.figures(0, {}).trained_bytes
        estimates = measured.estimates()
        names = sorted((weight.name for weight in self._weights), key=lambda name: -estimates[name].total)
        lr = wish.lr
        if lr is None:
            lr = measured.rate(names[: max(1, len(names) // 4)], self._until(_CHOOSING_RATE))
        stops = self._stops()
        depth_gains = measured.depth_gains(stops, lr, self._until(_MEASURING))
        contributions = measured.contributions(names, lr, self._until(_MEASURING))
        channels, genes = self._genes(contributions, estimates)
        space = _Space(self._weights, stops, channels, self._candidates)
        figures = functools.cache(lambda levels: self._account.figures(*space.parts(levels)))

        def account(levels: Levels) -> float:
            found = figures(levels)
            return found.trained_bytes + max(floor, found.backward_bytes)

        def planned(levels: Levels) -> int | None:
            plan = self._planned(space.scheme(levels))
            return None if plan is None or plan[1] > self._most_macs else plan[0]

        def measure(levels: Levels, lr: float, fold: int) -> Outcome:
            depth, ratios = space.parts(levels)
            kept = {weight.name: weight.kept(ratios[weight.name], channels) for weight in space.chosen(ratios)}
            return measured.scheme(depth, kept, lr, fold)

        def loss_of(levels: Levels, lr: float, fold: int) -> float:
            return measure(levels, lr, fold).loss

        fitter = PlanFitter(account, self._step_bounds(figures), planned, seed=wish.seed, going_on=self._planning)
        problem = Problem((tuple(depth_gains), *genes))
        first = [fitter.fit(problem, wish.budget)]
        others = other_sums(problem, self._weights)
        for number, other in enumerate(others):
            self._tell("plan rivals", number, len(others))
            rival = fitter.rival(other)
            first += [] if rival is None else [rival]
        model = GainModel(problem, [(0.0, *weight.ratios) for weight in self._weights])
        whole = WholeSchemes(fitter, model, loss_of, HELD_OUT, self._going_on, wish.seed)
        rates = [lr]
        if wish.lr is None:
            exploring = self._until(_EXPLORING)
            lr = whole.best_rate(first, lr, lambda loss_at, first_lr: measured.uphill(loss_at, first_lr, exploring))
            rates = [lr, lr * RATE_FACTOR, lr / RATE_FACTOR]
        whole.explore(first, lr)
        found, lr = whole.choose(rates)
        head, bias, outcome = measured.depth(0, lr), measured.depth(stops[-1], lr), measure(found.levels, lr, 0)
        scheme = space.scheme(found.levels)
        plan = self._planned(scheme)
        assert plan is not None
        return SearchReport(
            scheme=scheme,
            planned_bytes=plan[0],
            budget=wish.budget,
            expected_gain=problem.gain(found.levels),
            head_loss=head.loss,
            bias_loss=bias.loss,
            found_loss=outcome.loss,
            head_accuracy=head.accuracy,
            bias_accuracy=bias.accuracy,
            found_accuracy=outcome.accuracy,
            macs_ratio=plan[1] / self._account.forward_macs,
            lr=lr,
            steps=self._steps,
            seconds=time.monotonic() - self._began,
            runs=measured.runs,
            contributions=tuple(contributions.values()),
        )

    def _stops(self) -> list[int]:
        """Depths that differ in what they train."""
        depths = self._candidates.depths
        return [0] + [k for k in range(1, len(depths)) if depths[k] != depths[k - 1]]

    def _genes(
        self, contributions: dict[str, Contribution], estimates: dict[str, Estimate]
    ) -> tuple[str, list[tuple[float, ...]]]:
        """Which channels ratios keep, those that have more of the gradients; and by weight the gains of its ratios."""

        def gains(weight: Weight, choice: str) -> tuple[float, ...]:
            whole, estimate = contributions[weight.name].gain, estimates[weight.name]
            cut = [whole * estimate.share(weight.kept(ratio, choice)) for ratio in weight.ratios[:-1]]
            return (0.0, *cut, whole)

        tables = {choice: [gains(weight, choice) for weight in self._weights] for choice in CHANNELS}
        best = max(tables, key=lambda choice: sum(max(gain, 0.0) for gene in tables[choice] for gain in gene))
        return best, tables[best]

    @property
    def _most_macs(self) -> float:
        """Of a step."""
        return math.inf if self._wish.step_ratio is None else self._wish.step_ratio * self._account.forward_macs

    def _step_bounds(self, figures: Callable[[Levels], Figures]) -> list[Bound]:
        return [Bound(lambda levels: figures(levels).macs, self._most_macs)] if self._wish.step_ratio else []

    # -- plans and time ---------------------------------------------------------------------------------------------

    def _planned(self, scheme: Scheme) -> tuple[int, int] | None:
        """Bytes and multiply-adds of its plan within the budget."""
        targets, budget = ",".join(target.name for target in self._request.targets), self._wish.budget
        name = f"plan {targets} {budget} {self._again} again {scheme.to_toml()}"
        return self._journal.recall(name, lambda: self._planner.within(scheme, budget, self._again))

    def _smallest(self) -> int:
        targets = ",".join(target.name for target in self._request.targets)
        return self._journal.recall(f"smallest plan {targets}", lambda: self._planner.smallest(Scheme("head")))

    def _until(self, share: float) -> Callable[[], bool]:
        """Whether less than that of the time limit is spent."""
        return lambda: self._spent() < share

    def _planning(self, done: int, total: int) -> bool:
        """Whether there is time for another plan, of the first ones; without some there is nothing but the head."""
        if done < total:
            self._tell("plan schemes", done, total)
        return self._spent() < (_EXPLORING if done < _LEAST_PLANS else _PLANNING)

    def _going_on(self, stage: str, done: int, total: int) -> bool:
        """Whether there is time for another measurement of whole schemes."""
        self._tell(stage, done, total)
        return self._spent() < (_CHOOSING if stage == COMPARE else _EXPLORING)

    def _spent(self) -> float:
        """The share of the time limit."""
        return (time.monotonic() - self._began) / max(self._wish.seconds, 1e-9)

    def _tell(self, stage: str, done: int, total: int) -> None:
        left = max(0.0, self._wish.seconds * (1 - self._spent()))
        self._say(SearchProgress(stage, done, total, left))


@dataclass(frozen=True)
class _Space:
    """What levels mean: of the first gene one of `stops`, a depth of biases; of the others a ratio of a weight."""

    weights: Sequence[Weight]
    stops: Sequence[int]
    channels: str
    candidates: Candidates

    def chosen(self, ratios: Mapping[str, float]) -> list[Weight]:
        return [weight for weight in self.weights if weight.name in ratios]

    def parts(self, levels: Levels) -> tuple[int, dict[str, float]]:
        """Depth of biases, and ratios by name."""
        depth, *chosen = levels
        ratios = {w.name: w.ratios[level - 1] for w, level in zip(self.weights, chosen, strict=True) if level}
        return self.stops[depth], ratios

    def scheme(self, levels: Levels) -> Scheme:
        depth, ratios = self.parts(levels)
        return self.candidates.scheme(depth, ratios, self.channels if min(ratios.values(), default=1) < 1 else "first")


def _signature(train: Graph) -> Signature:
    """What data for the program `train` has to fit, before it is compiled."""
    slots = []
    for leaf in (*train.by_role(Role.INPUT), *train.by_role(Role.SCALAR)):
        bounds = leaf.bounds
        info = TensorInfo(
            leaf.name,
            leaf.type.shape,
            leaf.type.dtype.numpy,
            bounds=None if bounds is None else (bounds.low, bounds.high),
            ignored=None if bounds is None else bounds.ignored,
        )
        slots.append((Slot.INPUT if leaf.role is Role.INPUT else Slot.SCALAR, info))
    return Signature("train", 0, tuple(slots), 0, 0, True)


def _copies(train: Train) -> float:
    """How many times as large as a trained parameter is all that is kept of it: itself, averages, its gradient."""
    states = {"sgd": int(train.momentum > 0), "lion": 1}.get(train.optimizer, 2)
    return 1 + states + (train.accumulate > 1 or train.clip_norm is not None or train.guard == "grads")
