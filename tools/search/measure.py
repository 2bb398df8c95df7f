"""Contributions by measurement: one artifact that can train everything, whose rates say what it trains.

A run starts from the model's own parameters, takes the same batches in the same order as others of its fold, and is
judged on samples that none of them has. Its gain is how much lower the loss there becomes.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Container, Iterator, Mapping
from pathlib import Path

import numpy as np

from edgec.backends.base import Arch, Target
from edgec.backends.targets import find_target, host_arch
from edgec.compiler.compile import compile_module
from edgec.compiler.optimizers import RATE
from edgec.compiler.passes.append_updates import HELD
from edgec.compiler.sparse.scheme import Scheme
from edgec.compiler.train import Train
from edgec.graph.errors import UserError
from edgec.graph.ir import Module
from edgec.runtime.binding import Model, load
from edgec.runtime.dataset import Arrays, Sizes, batches, check_data
from edgec.runtime.errors import RuntimeFailure
from edgec.runtime.evaluate import evaluate
from edgec.runtime.layout import write_artifact
from edgec.runtime.schedule import Cosine, WarmUp
from edgec.tools.request import Request

HELD_OUT = 4  # every so manieth sample, and as many folds
WARM = 0.1  # of a run the part in which the rate rises: without, few schemes bear the rates that they learn best at
MAX_HELD_OUT = 512
_DIVERGED = ("E0605", "E0613")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Of a run, on what was held out: loss (infinite where the run diverged) and accuracy, None without classes."""

    loss: float
    accuracy: float | None

    def to_json(self) -> list:
        return [self.loss if math.isfinite(self.loss) else None, self.accuracy]

    @staticmethod
    def of_json(record: list) -> Outcome:
        return Outcome(math.inf if record[0] is None else record[0], record[1])


def host_target() -> Target:
    """The target whose code this machine runs."""
    return find_target("x86" if host_arch() is Arch.X86_64 else "rpi4")


def at_given_rates(train: Train, update: Scheme) -> Train:
    """`train` with all of `update` trained at rates that every step is given, and gradients that can be read."""
    accumulate = max(2, train.accumulate)
    return dataclasses.replace(train, update=update, rates="runtime", accumulate=accumulate, memory_budget=None)


class Laboratory:
    """The open artifact and its data. UserError as of compiling; RuntimeFailure E0607, E0604 for the data.

    `update`: all that a run may train.
    """

    def __init__(
        self, request: Request, module: Module, update: Scheme, data: Arrays, *, seed: int, threads: int | None
    ):
        assert request.train is not None
        self._every = request.train.accumulate
        self._seed = seed
        self._folder = tempfile.TemporaryDirectory(prefix="edgec-search-")
        self._model = self._compile(request, module, update, threads)
        self._start = Path(self._folder.name) / "start.edgeckpt"
        self._model.save_checkpoint(self._start)
        self._rates = [info.name for info in self._model.signature("apply").scalars if info.name.endswith(RATE)]
        self._sizes = check_data(self._model.signature("train"), data)
        self._data, self._fold = data, 0
        self._take(0)

    def _compile(self, request: Request, module: Module, update: Scheme, threads: int | None) -> Model:
        path = Path(self._folder.name) / "all.edge"
        options = dataclasses.replace(request.options, train=at_given_rates(request.train, update))
        backends = dataclasses.replace(request, targets=(host_target(),)).backends()
        result = compile_module(module.clone(), backends, options)
        assert result is not None
        write_artifact(path, result.artifact)
        return load(path, threads)

    def close(self) -> None:
        self._model.close()
        self._folder.cleanup()

    def _take(self, fold: int) -> None:
        self._fold = fold
        self._train, self._judge = split(self._data, self._sizes, fold)

    def run(self, trained: Mapping[str, np.ndarray | None], *, lr: float, steps: int, fold: int = 0) -> Outcome:
        """Train only the named parameters, from the start, at a rate that rises and then falls as half a cosine.

        Of those that are given with bool[shape], elements for which it is true are put back after every update.
        """
        if fold != self._fold:
            self._take(fold)
        self._model.load_checkpoint(self._start)
        rates = self._only(trained)
        frozen = {name: elements for name, elements in trained.items() if elements is not None}
        start = {name: self._model.parameter(name) for name in frozen}
        schedule = WarmUp(round(WARM * steps), Cosine(lr))
        try:
            for step, feeds in enumerate(self._feeds(steps * self._every)):
                rate = schedule.rate(step // self._every, steps)
                self._model.step(feeds, lr=rate, **rates)
                if (step + 1) % self._every == 0 and self._model.held_steps:
                    self._model.apply(rate, **rates)
                    self._put_back(frozen, start)
            found = evaluate(self._model, self._judge)
        except RuntimeFailure as failure:
            if failure.code not in _DIVERGED:
                raise
            return Outcome(math.inf, None)
        return Outcome(found.loss if math.isfinite(found.loss) else math.inf, found.accuracy)

    def gradients(self, count: int) -> dict[str, np.ndarray]:
        """Of the loss where the last run ended: the mean over so many batches, f64, by parameter."""
        still = self._only(())
        sums: dict[str, np.ndarray] = {}
        for feeds in self._feeds(count):
            self._model.step(feeds, lr=0.0, **still)
            states = self._model.states()
            weight = float(states["held/weight"])
            for name in (name for name in states if name.endswith(HELD)):
                param = name.removesuffix(HELD)
                sums[param] = sums.get(param, 0.0) + states[name].astype(np.float64) / weight
            self._model.apply(0.0, **still)
        return {name: total / count for name, total in sums.items()}

    def _only(self, trained: Container[str]) -> dict[str, float]:
        return {name: float(name.removesuffix(RATE) in trained) for name in self._rates}

    def _put_back(self, frozen: Mapping[str, np.ndarray], start: Mapping[str, np.ndarray]) -> None:
        self._model.set_parameters(
            {name: np.where(frozen[name], start[name], self._model.parameter(name)) for name in frozen}
        )

    def _feeds(self, count: int) -> Iterator[dict[str, np.ndarray]]:
        """The first `count` batches, of as many epochs as that takes."""
        sizes = dataclasses.replace(self._sizes, samples=len(next(iter(self._train.values()))))
        epochs = -(-count // sizes.batches)
        stream = batches(sizes.samples, sizes.batch, epochs=epochs, seed=self._seed + self._fold)
        for _, (_, rows) in zip(range(count), stream, strict=False):
            taken = rows if self._sizes.masked else np.resize(rows, self._sizes.batch)
            yield {name: array[taken] for name, array in self._train.items()}


def split(data: Arrays, sizes: Sizes, fold: int = 0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(to train on, held out): some of every part of the data, whatever it is sorted by. UserError E0607.

    What one of the HELD_OUT folds holds out, no other does.
    """
    every = max(HELD_OUT, sizes.samples // MAX_HELD_OUT)
    judged = np.arange(sizes.samples) % every == fold
    least = 1 if sizes.masked else sizes.batch
    if sizes.samples // every < least:
        need = HELD_OUT * least
        message = f"{sizes.samples} samples are too few to hold some out: at least {need} are needed"
        hint = "take more, or a smaller train batch" if least > 1 else "take more"
        raise UserError("E0607", message, hint=hint)
    return {n: a[~judged] for n, a in data.items()}, {n: a[judged] for n, a in data.items()}
