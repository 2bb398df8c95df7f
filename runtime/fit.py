"""The fine-tuning loop on the tiny runtime: epochs, batches, schedule, evaluation, checkpoints, resume.

Used by `edgec train`, the app and the scheme search. The order of samples depends on the seed and the epoch alone, so a
run that was interrupted and resumed from its checkpoint is the same run, to the bit.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgec.runtime.binding import Model
from edgec.runtime.dataset import Arrays, batches, check_data
from edgec.runtime.errors import RuntimeFailure
from edgec.runtime.evaluate import Evaluation, evaluate
from edgec.runtime.schedule import Schedule

__all__ = ["Evaluation", "Fit", "Progress", "batches", "evaluate", "fit"]


@dataclass(frozen=True)
class Progress:
    """After a training step: `step` of `steps` are done; `seconds_left` is extrapolated from this run's pace."""

    step: int
    steps: int
    epoch: int
    loss: float
    lr: float
    seconds_left: float


@dataclass(frozen=True)
class Fit:
    """What a run did: the loss of every step from `first_step` on, and the evaluation after every epoch.

    `stopped` tells that it was asked to end before its last step. `best` is the best evaluation, of the runs before
    too where they left their best checkpoint.
    """

    first_step: int
    losses: tuple[float, ...]
    evaluations: tuple[Evaluation, ...]
    stopped: bool = False
    best: Evaluation | None = None


def fit(
    model: Model,
    data: Arrays,
    *,
    epochs: int,
    schedule: Schedule,
    eval_data: Arrays | None = None,
    scalars: Mapping[str, float] | None = None,
    seed: int = 0,
    checkpoint: Path | None = None,
    checkpoint_every: int = 0,
    best_checkpoint: Path | None = None,
    resume: bool = False,
    max_steps: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[Progress], None] | None = None,
    on_evaluation: Callable[[int, Evaluation], None] | None = None,
) -> Fit:
    """Train `model` on `data`: arrays named as the inputs of the `train` program, first axis the sample.

    Every sample comes once an epoch; the last batch is short, or where the program cannot leave rows out filled up with
    its own samples again. Gradients that are still held at the end of an epoch are applied there.

    With `checkpoint`, the state is saved there every `checkpoint_every` steps (0: after every epoch) and at the end;
    with `resume`, the run goes on from it if the file exists. `best_checkpoint` gets the state with the best evaluation
    on `eval_data`. `stop` is asked between steps: once it is true, the run saves its checkpoint and ends. `scalars` are
    fixed for the whole run: `{"classes": 5}` of a head that has room for more.

    Raises RuntimeFailure E0607 where the data does not fit, E0604 for a label out of range, E0605 when the loss is not
    finite (parameters are those before that step), E0613 for gradients or parameters that are not (checkpoints are
    whole), E0506 for a checkpoint of another model or of a run with another seed.
    """
    with _located("training data"):
        sizes = check_data(model.signature("train"), data)
    if eval_data is not None:
        with _located("evaluation data"):
            check_data(model.signature("eval"), eval_data)  # said before an epoch of work rather than after
    steps = epochs * sizes.batches if max_steps is None else min(epochs * sizes.batches, max_steps)
    keeper = _Keeper(model, checkpoint, best_checkpoint, seed)
    first = 0
    if resume:
        keeper.recall_best(eval_data, scalars)
        first = keeper.resume()
    losses: list[float] = []
    evaluations: list[Evaluation] = []
    started = time.monotonic()
    stream = itertools.islice(batches(sizes.samples, sizes.batch, epochs=epochs, seed=seed), first, max(steps, first))
    for step, (epoch, rows) in enumerate(stream, start=first):
        done, lr = step + 1, schedule.rate(step, steps)
        taken = rows if sizes.masked else np.resize(rows, sizes.batch)
        with _located(f"step {step}, learning rate {lr:g}"):
            losses.append(model.step({name: array[taken] for name, array in data.items()}, lr=lr, **(scalars or {})))
            if done % sizes.batches == 0 and model.held_steps:
                model.apply(lr)
        if on_progress:
            pace = (time.monotonic() - started) / (done - first)
            on_progress(Progress(done, steps, epoch, losses[-1], lr, pace * (steps - done)))
        if done < steps and stop():
            keeper.save(done)
            return Fit(first, tuple(losses), tuple(evaluations), stopped=True, best=keeper.best)
        ended = done % sizes.batches == 0 or done == steps
        if ended:
            keeper.check(done)
        if done == steps or (done % checkpoint_every == 0 if checkpoint_every else ended):
            keeper.save(done)
        if ended and eval_data is not None:
            evaluations.append(evaluate(model, eval_data, scalars=scalars))
            if on_evaluation:
                on_evaluation(epoch, evaluations[-1])
            keeper.offer(evaluations[-1], done)
    return Fit(first, tuple(losses), tuple(evaluations), best=keeper.best)


class _Keeper:
    """The checkpoints of a run: the last state, and the one that evaluated best."""

    def __init__(self, model: Model, last: Path | None, best: Path | None, seed: int):
        self._model, self._last, self._best_path, self._seed = model, last, best, seed
        self.best: Evaluation | None = None

    def save(self, step: int) -> None:
        if self._last is not None:
            self._write(self._last, step)

    def offer(self, evaluation: Evaluation, step: int) -> None:
        """Keep the state if none before evaluated better."""
        if self.best is None or evaluation.better_than(self.best):
            self.best = evaluation
            if self._best_path is not None:
                self._write(self._best_path, step)

    def recall_best(self, eval_data: Arrays | None, scalars: Mapping[str, float] | None) -> None:
        """How good the best state of earlier runs is: evaluated again, so that no figure has to be kept."""
        if self._best_path is not None and self._best_path.exists() and eval_data is not None:
            self._model.load_checkpoint(self._best_path)
            self.best = evaluate(self._model, eval_data, scalars=scalars)

    def resume(self) -> int:
        """Load the last state, if there is one; the step it was saved after."""
        if self._last is None or not self._last.exists():
            return 0
        saved = self._model.load_checkpoint(self._last)
        if saved.seed != self._seed:
            # Another order of samples: silently not the run that was interrupted.
            raise RuntimeFailure(
                "E0506",
                f"the checkpoint is of a run with seed {saved.seed}, this one has seed {self._seed}",
                where=str(self._last),
                hint=f"go on with seed {saved.seed}, or start anew without resuming",
            )
        return saved.step

    def check(self, step: int) -> None:
        """What was damaged is neither saved nor evaluated."""
        damaged = self._model.not_finite()
        if damaged is not None:
            raise RuntimeFailure(
                "E0613",
                f"`{damaged}` is not finite any more: a gradient overflowed under a finite loss",
                where=f"step {step}; the checkpoint stays as it was" if self._last else f"step {step}",
                hint="lower the learning rate, or compile with --guard grads, which refuses such steps",
            )

    def _write(self, path: Path, step: int) -> None:
        self.check(step)
        self._model.save_checkpoint(path, step=step, seed=self._seed)


@contextlib.contextmanager
def _located(where: str) -> Iterator[None]:
    """Failures inside that know no place get this one."""
    try:
        yield
    except RuntimeFailure as failure:
        failure.where = failure.where or where
        raise
