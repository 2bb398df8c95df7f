"""All that a search measures, each result kept in the journal: estimates, rates, gains of depths and weights."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgec.compiler.sparse.candidates import Candidates, by_channel
from edgec.graph.ir import Module
from edgec.runtime.dataset import Arrays
from edgec.tools.request import Request
from edgec.tools.search.journal import Journal
from edgec.tools.search.measure import Laboratory, Outcome
from edgec.tools.search.report import Contribution

_GRADIENT_BATCHES = 32
_DIVERGED = 1e3  # what a run loses that did not stay finite
_DEPTHS = 6  # of biases that are measured; gains of others lie between
# Learning rates that are tried first, and by which factor others lie apart.
_USUAL_RATES = {"sgd": 0.1, "adam": 1e-3, "adamw": 1e-3, "lion": 1e-4}
RATE_FACTOR = 2.0
_RATES, _LEAST_RATE = 9, 1e-8

# Stage, how many are done, of how many.
Tell = Callable[[str, int, int], None]
GoingOn = Callable[[], bool]  # whether there is time for another run


@dataclass(frozen=True)
class Estimate:
    """The first-order decrease of the loss by one step of rate 1 of a parameter: in all, and of a weight by channel."""

    total: float
    channels: tuple[float, ...] = ()

    def share(self, kept: Sequence[int] | None) -> float:
        """How much of it is in so many channels; None: all of them."""
        if kept is None or self.total <= 0:
            return 1.0
        return sum(self.channels[channel] for channel in kept) / self.total


class Measurements:
    """Runs of `steps` updates from the model's own parameters."""

    def __init__(
        self,
        request: Request,
        module: Module,
        candidates: Candidates,
        data: Arrays,
        journal: Journal,
        tell: Tell,
        *,
        steps: int,
        seed: int,
        threads: int | None,
    ):
        assert request.train is not None
        self._request, self._module, self._data = request, module, data
        self._candidates, self._journal, self._tell = candidates, journal, tell
        self._steps, self._seed, self._threads = steps, seed, threads
        self._optimizer = request.train.optimizer
        # A step of SGD with momentum goes 1 / (1 - momentum) times as far in the end.
        self._usual_rate = _USUAL_RATES[self._optimizer] * (1 - request.train.momentum)
        self._laboratory: Laboratory | None = None
        self.runs = 0

    def close(self) -> None:
        if self._laboratory is not None:
            self._laboratory.close()

    # -- what is measured -------------------------------------------------------------------------------------------

    def estimates(self) -> dict[str, Estimate]:
        """By parameter."""
        records = self._journal.recall("estimates", self._estimate)
        return {name: Estimate(total, tuple(channels)) for name, (total, channels) in records.items()}

    def rate(self, promising: Collection[str], going_on: GoingOn) -> float:
        """The learning rate at which head, biases and the named weights learn best."""
        whole = dict.fromkeys(promising)
        return self.uphill(lambda lr: self.scheme(self._deepest, whole, lr).loss, self._usual_rate, going_on)

    def depth(self, depth: int, lr: float) -> Outcome:
        """Of the head and the biases of the last `depth` layers."""
        return self.scheme(depth, {}, lr)

    def scheme(self, depth: int, kept: Mapping[str, Sequence[int] | None], lr: float, fold: int = 0) -> Outcome:
        """Of the head, biases and so many channels of weights, None for all of them."""
        names = dict.fromkeys(self._candidates.head | self._candidates.depths[depth]) | dict(kept)
        listed = [name if some is None else f"{name} {sorted(some)}" for name, some in sorted(names.items())]
        weights = {weight.name: weight for weight in self._candidates.weights}
        arm = hashlib.sha256("\n".join(listed).encode()).hexdigest()[:16]

        def measure() -> list:
            self.runs += 1
            trained = {name: None if some is None else weights[name].others(some) for name, some in names.items()}
            return self._lab().run(trained, lr=lr, steps=self._steps, fold=fold).to_json()

        return Outcome.of_json(self._journal.recall(f"run {lr!r} fold {fold} {arm}", measure))

    def depth_gains(self, stops: Sequence[int], lr: float, going_on: GoingOn) -> list[float]:
        """Over the head alone, of every depth in `stops`, which begin with 0; some are measured, others lie between."""
        last = len(stops) - 1
        between = {round(place) - 1 for place in np.geomspace(1, last + 1, _DEPTHS + 1)} - {0, last}
        gains = {0: 0.0}
        for number, place in enumerate([last, *sorted(between)]):
            self._tell("measure depths of biases", number, len(between) + 1)
            if place != last and not going_on():
                break
            gains[place] = difference(self.depth(0, lr), self.depth(stops[place], lr))
        places = sorted(gains)
        return np.interp(range(len(stops)), places, [gains[place] for place in places]).tolist()

    def contributions(self, names: Sequence[str], lr: float, going_on: GoingOn) -> dict[str, Contribution]:
        """Of weights, over head and all biases, the most promising first; what there is no time for is estimated."""
        estimates, base = self.estimates(), self.depth(self._deepest, lr)
        order = sorted(names, key=lambda name: -estimates[name].total)
        outcomes: dict[str, Outcome] = {}
        for number, name in enumerate(order):
            self._tell("measure weights", number, len(order))
            if not going_on():
                break
            outcomes[name] = self.scheme(self._deepest, {name: None}, lr)
        gains = {name: difference(base, outcome) for name, outcome in outcomes.items()}
        per_estimate = [max(0.0, gain) / estimates[name].total for name, gain in gains.items() if estimates[name].total]
        scale = float(np.median(per_estimate)) if per_estimate else 1.0
        return {
            name: Contribution(
                name,
                gains.get(name, scale * estimates[name].total),
                estimates[name].total,
                name in gains,
                outcomes[name].accuracy if name in outcomes else None,
            )
            for name in order
        }

    # -- how --------------------------------------------------------------------------------------------------------

    @property
    def _deepest(self) -> int:
        return len(self._candidates.depths) - 1

    def _lab(self) -> Laboratory:
        """Made when something has to be measured: nothing has where the journal knows it all."""
        if self._laboratory is None:
            self._tell("compile the step that is measured with", 0, 1)
            everything = self._candidates.everything
            self._laboratory = Laboratory(
                self._request, self._module, everything, self._data, seed=self._seed, threads=self._threads
            )
        return self._laboratory

    def _estimate(self) -> dict[str, Any]:
        """Where the head ends that was trained alone: of an untrained one, gradients say little."""
        head, lr = dict.fromkeys(self._candidates.head), self._usual_rate
        while not math.isfinite(self._lab().run(head, lr=lr, steps=self._steps).loss) and lr > _LEAST_RATE:
            lr /= 10
        gradients = self._lab().gradients(_GRADIENT_BATCHES)
        # Of one step of rate 1: |g|^2 of SGD; optimizers that divide by the gradient's size go |g| far.
        decrease = np.square if self._optimizer == "sgd" else np.abs
        channels = {weight.name: weight.channels for weight in self._candidates.weights}
        found = {}
        for name, gradient in gradients.items():
            amount, cut = decrease(gradient), channels.get(name)
            found[name] = [float(amount.sum()), [] if cut is None else by_channel(amount, cut).tolist()]
        return found

    def uphill(self, loss_at: Callable[[float], float], first: float, going_on: GoingOn) -> float:
        """The rate of least loss, from `first` by factors until it becomes no better, or time is up."""
        losses: dict[int, float] = {}

        def loss(power: int) -> float:
            if power not in losses:
                self._tell("choose a learning rate", len(losses), _RATES)
                losses[power] = loss_at(rate(power))
            return losses[power]

        def rate(power: int) -> float:
            return first * RATE_FACTOR**power

        best = 0
        while len(losses) < _RATES and (not losses or going_on()):
            better = min((best, best - 1, best + 1), key=loss)
            if better == best and math.isfinite(loss(best)):
                break
            best = better if better != best else best - 2
        return rate(min(losses, key=lambda power: losses[power]))


def difference(before: Outcome, after: Outcome) -> float:
    """By how much a loss fell. What diverged gained nothing, and less than anything else."""
    if not math.isfinite(after.loss):
        return -_DIVERGED
    return before.loss - after.loss if math.isfinite(before.loss) else _DIVERGED
