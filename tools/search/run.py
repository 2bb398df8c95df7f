"""`edgec search` from end to end: estimate, measure, search, plan. See `compiler/sparse/search.md`."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgec import __version__
from edgec.backends.cache import cache_folder
from edgec.compiler.passbase import Phase, Trace
from edgec.compiler.pipeline import transform_module
from edgec.compiler.sparse.account import Account, Figures
from edgec.compiler.sparse.candidates import Candidates, Weight, by_channel, find_candidates
from edgec.compiler.sparse.fit_plans import fit_plans
from edgec.compiler.sparse.scheme import CHANNELS, Scheme
from edgec.compiler.sparse.search import Bound, Levels, Problem
from edgec.compiler.train import Train
from edgec.graph.ir import Graph, Role
from edgec.graph.text import print_module
from edgec.runtime.dataset import Arrays, check_data
from edgec.runtime.format import Slot
from edgec.runtime.signature import Signature, TensorInfo
from edgec.tools.cli.console import located
from edgec.tools.request import Request
from edgec.tools.search.journal import Journal
from edgec.tools.search.measure import Laboratory, Outcome, split
from edgec.tools.search.planner import Planner, refuse_small
from edgec.tools.search.report import Contribution, Say, SearchProgress, SearchReport, Wish

_MEASURING = 0.7  # of the time limit; the rest is for plans
_GRADIENT_BATCHES = 16
_DIVERGED = 1e3  # what a run loses that did not stay finite
_DEPTHS = 6  # of biases that are measured; gains of others lie between
# Learning rates that are tried first, and by which factor others lie apart.
_FIRST_RATE = {"sgd": 0.03, "adam": 1e-3, "adamw": 1e-3, "lion": 1e-4}
_RATE_FACTOR, _RATES = math.sqrt(10.0), 7


def find_scheme(request: Request, data: Arrays, wish: Wish, say: Say | None = None) -> SearchReport:
    """UserError E0405 for a budget that not even the head can keep to, E0607 for data that does not fit or is too
    little, E0505 where the journal cannot be written, and all of `edgec.compile`.
    """
    search_ = _Search(request, data, wish, say or (lambda progress: None))
    try:
        return search_.run()
    finally:
        search_.close()


class _Search:
    def __init__(self, request: Request, data: Arrays, wish: Wish, say: Say):
        assert request.train is not None
        self._began = time.monotonic()
        self._data, self._wish, self._say = data, wish, say
        self._train = dataclasses.replace(request.train, update="head", memory_budget=None)
        self._request = dataclasses.replace(request, train=self._train)
        self._module = request.read()
        self._candidates = self._find_candidates()
        self._everything = self._candidates.scheme(
            len(self._candidates.depths) - 1, {weight.name: 1.0 for weight in self._candidates.weights}
        )
        full = self._full_step()
        with located("--data"):
            split(data, check_data(_signature(full), data))  # said before a compilation rather than after
        self._account = Account(full, self._candidates, _copies(self._train))
        self._weights = [weight for weight in self._candidates.weights if weight.name in self._account.trainable]
        self._planner = Planner(self._request, self._module)
        self._journal = Journal(cache_folder() / "search" / f"{self._key()}.jsonl")
        self._laboratory: Laboratory | None = None
        self._measured = 0

    def close(self) -> None:
        if self._laboratory is not None:
            self._laboratory.close()

    # -- what there is ----------------------------------------------------------------------------------------------

    def _find_candidates(self) -> Candidates:
        module, found = self._module.clone(), []

        def look(name: str) -> None:
            if name == "mark_trainable":
                found.append(find_candidates(module.programs["infer"]))

        transform_module(module, self._request.options, Trace(stop_after=Phase.SPECIALISE, observe=look))
        return found[0]

    def _full_step(self) -> Graph:
        train = dataclasses.replace(self._train, update=self._everything, accumulate=1, clip_norm=None, guard="loss")
        module = self._module.clone()
        transform_module(module, dataclasses.replace(self._request.options, train=train))
        return module.programs["train"]

    def _key(self) -> str:
        """Of all that runs depend on."""
        digest = hashlib.sha256(f"edgec {__version__}\n{print_module(self._module)}".encode())
        options = {"train": self._train, "head": self._request.new_head, "images": dict(self._request.images)}
        wish = (self._wish.steps, self._wish.seed)
        digest.update(repr((sorted(options.items(), key=lambda item: item[0]), wish)).encode())
        for name, array in sorted(self._data.items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        return digest.hexdigest()[:32]

    @property
    def _lab(self) -> Laboratory:
        """Made when something has to be measured: nothing has where the journal knows it all."""
        if self._laboratory is None:
            self._tell("compile the step that is measured with", 0, 1)
            self._laboratory = Laboratory(
                self._request,
                self._module,
                self._everything,
                self._data,
                seed=self._wish.seed,
                threads=self._wish.threads,
            )
        return self._laboratory

    # -- the whole --------------------------------------------------------------------------------------------------

    def run(self) -> SearchReport:
        wish, candidates = self._wish, self._candidates
        head = Scheme("head")
        head_bytes = self._planned(head)
        if head_bytes is None:
            raise refuse_small(wish.budget, self._smallest())
        floor = self._smallest() - self._account.figures(0, {}).trained_bytes
        estimates = self._estimates()
        order = sorted(self._weights, key=lambda weight: -estimates[weight.name]["total"])
        promising = {weight.name for weight in order[: max(1, len(order) // 4)]}
        lr = wish.lr if wish.lr is not None else self._rate(promising)
        deepest = len(candidates.depths) - 1
        head_run = self._run(candidates.head, lr)
        bias_run = self._run(self._names(deepest), lr)
        stops = self._stops()
        depth_gains = self._depth_gains(stops, head_run, bias_run, lr)
        contributions = self._contributions([weight.name for weight in order], estimates, bias_run, lr)
        channels, genes = self._genes(stops, depth_gains, contributions, estimates)
        space = _Space(self._weights, stops, channels, self._candidates)
        figures = functools.cache(lambda levels: self._account.figures(*space.parts(levels)))
        found = fit_plans(
            Problem(tuple(genes)),
            lambda levels: (
                figures(levels).trained_bytes + max(floor, figures(levels).saved_bytes + figures(levels).working_bytes)
            ),
            self._step_bounds(figures),
            lambda levels: self._planned(space.scheme(levels)),
            budget=wish.budget,
            seed=wish.seed,
            going_on=self._going_on,
        )
        return SearchReport(
            scheme=space.scheme(found.levels),
            planned_bytes=found.bytes,
            budget=wish.budget,
            expected_gain=found.gain,
            head_loss=head_run.loss,
            bias_loss=bias_run.loss,
            macs_ratio=figures(found.levels).macs / self._account.forward_macs,
            lr=lr,
            seconds=time.monotonic() - self._began,
            runs=self._measured,
            exact=found.exact,
            contributions=tuple(contributions.values()),
        )

    def _step_bounds(self, figures: Callable[[Levels], Figures]) -> list[Bound]:
        if self._wish.step_ratio is None:
            return []
        return [Bound(lambda levels: figures(levels).macs, self._wish.step_ratio * self._account.forward_macs)]

    def _going_on(self, done: int, total: int) -> bool:
        """Whether there is time for another plan."""
        self._tell("plan schemes", done, total)
        return time.monotonic() - self._began < self._wish.seconds

    # -- plans ------------------------------------------------------------------------------------------------------

    def _planned(self, scheme: Scheme) -> int | None:
        targets = ",".join(target.name for target in self._request.targets)
        name = f"plan {targets} {self._wish.budget} {scheme.to_toml()}"
        return self._journal.recall(name, lambda: self._planner.bytes_within(scheme, self._wish.budget))

    def _smallest(self) -> int:
        targets = ",".join(target.name for target in self._request.targets)
        return self._journal.recall(f"smallest plan {targets}", lambda: self._planner.smallest(Scheme("head")))

    # -- measurements -----------------------------------------------------------------------------------------------

    def _names(self, depth: int) -> frozenset[str]:
        return self._candidates.head | self._candidates.depths[depth]

    def _run(self, trained: frozenset[str], lr: float) -> Outcome:
        arm = hashlib.sha256("\n".join(sorted(trained)).encode()).hexdigest()[:16]

        def measure() -> list:
            self._measured += 1
            return self._lab.run(trained, lr=lr, steps=self._wish.steps).to_json()

        return Outcome.of_json(self._journal.recall(f"run {lr!r} {arm}", measure))

    def _estimates(self) -> dict[str, dict[str, Any]]:
        """By parameter: the first-order decrease of the loss, and of weights what of it is in each channel."""
        return self._journal.recall("estimates", self._estimate)

    def _estimate(self) -> dict[str, dict[str, Any]]:
        """Where a head that was trained alone ends: of an untrained one, gradients say nothing."""
        lr = _FIRST_RATE[self._train.optimizer]
        while not math.isfinite(self._lab.run(self._candidates.head, lr=lr, steps=self._wish.steps).loss) and lr > 1e-8:
            lr /= 10
        gradients = self._lab.gradients(_GRADIENT_BATCHES)
        # Of one step of rate 1: |g|^2 of SGD; optimizers that divide by the gradient's size go |g| far.
        decrease = np.square if self._train.optimizer == "sgd" else np.abs
        channels = {weight.name: weight.channels for weight in self._candidates.weights}
        found = {}
        for name, gradient in gradients.items():
            amount = decrease(gradient)
            found[name] = {"total": float(amount.sum())}
            if channels.get(name) is not None:
                found[name]["channels"] = by_channel(amount, channels[name]).tolist()
        return found

    def _rate(self, promising: set[str]) -> float:
        """The rate at which head, biases and the most promising weights learn best, searched uphill."""
        trained = self._names(len(self._candidates.depths) - 1) | promising
        first = _FIRST_RATE[self._train.optimizer]
        losses: dict[int, float] = {}

        def loss(power: int) -> float:
            if power not in losses:
                self._tell("choose a learning rate", len(losses), _RATES)
                losses[power] = self._run(trained, first * _RATE_FACTOR**power).loss
            return losses[power]

        best = 0
        while len(losses) < _RATES:
            around = min((best - 1, best, best + 1), key=lambda power: (loss(power), power))
            if around == best:
                break
            best = around
        return first * _RATE_FACTOR**best

    def _stops(self) -> list[int]:
        """Depths that differ in what they train."""
        depths = self._candidates.depths
        return [0] + [k for k in range(1, len(depths)) if depths[k] != depths[k - 1]]

    def _depth_gains(self, stops: Sequence[int], head: Outcome, bias: Outcome, lr: float) -> list[float]:
        if len(stops) == 1:
            return [0.0]
        places = sorted({round(place) for place in np.geomspace(1, len(stops), _DEPTHS + 1) - 1} | {len(stops) - 1})
        gains = []
        for number, place in enumerate(places):
            self._tell("measure depths of biases", number, len(places))
            outcome = (
                head if place == 0 else bias if place == len(stops) - 1 else self._run(self._names(stops[place]), lr)
            )
            gains.append(_difference(head.loss, outcome.loss))
        return np.interp(range(len(stops)), places, gains).tolist()

    def _contributions(
        self, order: Sequence[str], estimates: Mapping[str, Any], bias: Outcome, lr: float
    ) -> dict[str, Contribution]:
        """Of weights, the most promising first; what there is no time for is estimated."""
        base = self._names(len(self._candidates.depths) - 1)
        outcomes: dict[str, Outcome] = {}
        for number, name in enumerate(order):
            self._tell("measure weights", number, len(order))
            if time.monotonic() - self._began > self._wish.seconds * _MEASURING:
                break
            outcomes[name] = self._run(base | {name}, lr)
        gains = {name: _difference(bias.loss, outcome.loss) for name, outcome in outcomes.items()}
        rates = [
            max(0.0, gain) / estimates[name]["total"] for name, gain in gains.items() if estimates[name]["total"] > 0
        ]
        scale = float(np.median(rates)) if rates else 1.0
        return {
            name: Contribution(
                name,
                gains.get(name, scale * estimates[name]["total"]),
                estimates[name]["total"],
                name in gains,
                outcomes[name].accuracy if name in outcomes else None,
            )
            for name in order
        }

    # -- the problem ------------------------------------------------------------------------------------------------

    def _genes(
        self,
        stops: Sequence[int],
        depth_gains: Sequence[float],
        contributions: Mapping[str, Contribution],
        estimates: Mapping[str, Any],
    ) -> tuple[str, list[tuple[float, ...]]]:
        """Which channels ratios keep, those that have more of the gradients, and the gains of depths and ratios."""
        tables = {}
        for choice in CHANNELS:
            tables[choice] = [
                (0.0, *(contributions[w.name].gain * _share(w, ratio, choice, estimates[w.name]) for ratio in w.ratios))
                for w in self._weights
            ]
        totals = {
            choice: sum(sum(max(gain, 0.0) for gain in gene) for gene in genes) for choice, genes in tables.items()
        }
        best = max(CHANNELS, key=lambda choice: totals[choice])
        return best, [tuple(depth_gains), *tables[best]]

    def _tell(self, stage: str, done: int, total: int) -> None:
        left = max(0.0, self._wish.seconds - (time.monotonic() - self._began))
        self._say(SearchProgress(stage, done, total, left))


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


@dataclass(frozen=True)
class _Space:
    """What levels mean: of the first gene one of `stops`, a depth of biases; of the others a ratio of a weight."""

    weights: Sequence[Weight]
    stops: Sequence[int]
    channels: str
    candidates: Candidates

    def parts(self, levels: Levels) -> tuple[int, dict[str, float]]:
        """Depth of biases, and ratios by name."""
        depth, *chosen = levels
        ratios = {w.name: w.ratios[level - 1] for w, level in zip(self.weights, chosen, strict=True) if level}
        return self.stops[depth], ratios

    def scheme(self, levels: Levels) -> Scheme:
        depth, ratios = self.parts(levels)
        return self.candidates.scheme(depth, ratios, self.channels if min(ratios.values(), default=1) < 1 else "first")


def _copies(train: Train) -> float:
    """How many times as large as a trained parameter is all that is kept of it: itself, averages, its gradient."""
    states = {"sgd": int(train.momentum > 0), "lion": 1}.get(train.optimizer, 2)
    return 1 + states + (train.accumulate > 1 or train.clip_norm is not None or train.guard == "grads")


def _difference(before: float, after: float) -> float:
    """By how much a loss fell. What diverged gained nothing, and less than anything else."""
    if not math.isfinite(after):
        return -_DIVERGED
    return before - after if math.isfinite(before) else _DIVERGED


def _share(weight: Weight, ratio: float, choice: str, estimate: Mapping[str, Any]) -> float:
    """How much of a weight's estimate is in the channels that a ratio keeps."""
    total = estimate["total"]
    if ratio == 1.0 or weight.channels is None or total <= 0:
        return 1.0
    return float(np.array(estimate["channels"])[weight.kept(ratio, choice)].sum() / total)
