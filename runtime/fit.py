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
from edgec.runtime.errors import RuntimeFailure
from edgec.runtime.schedule import Schedule
from edgec.runtime.signature import TensorInfo

Arrays = Mapping[str, np.ndarray]


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
class Evaluation:
    """Over a whole data set: mean loss, and the share of samples whose largest output is at the label."""

    loss: float
    accuracy: float
    samples: int


@dataclass(frozen=True)
class Fit:
    """What a run did: the loss of every step from `first_step` on, and the evaluation after every epoch.

    `stopped` tells that it was asked to end before its last step.
    """

    first_step: int
    losses: tuple[float, ...]
    evaluations: tuple[Evaluation, ...]
    stopped: bool = False


def batches(samples: int, batch: int, *, epochs: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """Pairs (epoch, `batch` sample indices): a stream of seeded permutations, one per epoch, cut into batches.

    A batch may span two epochs, so that no sample is dropped; what is left of the last epoch, less than one batch, is.
    """
    pending = np.empty(0, np.int64)
    for epoch in range(epochs):
        order = np.random.default_rng((seed, epoch)).permutation(samples)
        pending = np.concatenate([pending, order])
        while len(pending) >= batch:
            yield epoch, pending[:batch]
            pending = pending[batch:]


def evaluate(
    model: Model, data: Arrays, *, output: str | None = None, scalars: Mapping[str, float] | None = None
) -> Evaluation:
    """Mean loss and accuracy of the `eval` program over `data` (its inputs, labels among them).

    The last batch is filled up with samples of the one before. They count once towards the accuracy; the last batch's
    mean loss, which has them in it, stands for its new samples. `scalars` are as in `fit`.
    """
    batch, samples = _sizes(model, "eval", data)
    output, labels = output or _only_output(model), _labels(model)
    loss_sum, right = 0.0, 0
    for start in range(0, samples, batch):
        first = min(start, samples - batch)
        fresh = slice(start - first, batch)
        feeds = {name: array[first : first + batch] for name, array in data.items()}
        loss, outputs = model.eval_step(feeds, **(scalars or {}))
        counted = batch - (start - first)
        loss_sum += loss * counted
        predicted = outputs[output][fresh].reshape(counted, -1).argmax(axis=1)
        right += int((predicted == feeds[labels][fresh]).sum())
    return Evaluation(loss_sum / samples, right / samples, samples)


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
    resume: bool = False,
    max_steps: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[Progress], None] | None = None,
    on_evaluation: Callable[[int, Evaluation], None] | None = None,
) -> Fit:
    """Train `model` on `data`: arrays named as the inputs of the `train` program, first axis the sample.

    With `checkpoint`, the state is saved there every `checkpoint_every` steps (0: after every epoch) and at the end;
    with `resume`, the run goes on from it if the file exists. `stop` is asked between steps: once it is true, the run
    saves its checkpoint and ends. `scalars` are fixed for the whole run: `{"classes": 5}` of a head that has room for
    more. Raises RuntimeFailure E0607 where the data does not fit, E0604 for a label out of
    range, E0605 when the loss is not finite (parameters are those before that step), E0506 for a checkpoint of another
    model or of a run with another seed.
    """
    with _located("training data"):
        batch, samples = _sizes(model, "train", data)
    if eval_data is not None:
        with _located("evaluation data"):
            _sizes(model, "eval", eval_data)  # said before an epoch of work rather than after
    steps = epochs * samples // batch
    if max_steps is not None:
        steps = min(steps, max_steps)
    first = _resume(model, checkpoint, seed) if resume and checkpoint is not None and checkpoint.exists() else 0
    losses: list[float] = []
    evaluations: list[Evaluation] = []
    started = time.monotonic()

    def save(step: int) -> None:
        if checkpoint is not None:
            model.save_checkpoint(checkpoint, step=step, seed=seed)

    def end_of_epoch(epoch: int, step: int) -> None:
        if eval_data is not None:
            evaluations.append(evaluate(model, eval_data, scalars=scalars))
            if on_evaluation:
                on_evaluation(epoch, evaluations[-1])
        if not checkpoint_every:
            save(step)

    current = None
    stream = itertools.islice(batches(samples, batch, epochs=epochs, seed=seed), first, max(steps, first))
    for step, (epoch, rows) in enumerate(stream, start=first):
        if current is not None and epoch != current:
            end_of_epoch(current, step)
        current = epoch
        lr = schedule.rate(step, steps)
        with _located(f"step {step}, learning rate {lr:g}"):
            loss = model.step({name: array[rows] for name, array in data.items()}, lr=lr, **(scalars or {}))
        losses.append(loss)
        done = step + 1
        if on_progress:
            pace = (time.monotonic() - started) / (done - first)
            on_progress(Progress(done, steps, epoch, loss, lr, pace * (steps - done)))
        if done < steps and stop():
            save(done)
            return Fit(first, tuple(losses), tuple(evaluations), stopped=True)
        if checkpoint_every and done % checkpoint_every == 0:
            save(done)
    if current is not None:
        end_of_epoch(current, steps)
        if checkpoint_every:
            save(steps)
    return Fit(first, tuple(losses), tuple(evaluations))


def _resume(model: Model, checkpoint: Path, seed: int) -> int:
    """Load the checkpoint; the step it was saved after."""
    saved = model.load_checkpoint(checkpoint)
    if saved.seed != seed:
        # Another order of samples: silently not the run that was interrupted.
        raise RuntimeFailure(
            "E0506",
            f"the checkpoint is of a run with seed {saved.seed}, this one has seed {seed}",
            where=str(checkpoint),
            hint=f"go on with seed {saved.seed}, or start anew without resuming",
        )
    return saved.step


@contextlib.contextmanager
def _located(where: str) -> Iterator[None]:
    """Failures inside that know no place get this one."""
    try:
        yield
    except RuntimeFailure as failure:
        failure.where = failure.where or where
        raise


def _sizes(model: Model, program: str, data: Arrays) -> tuple[int, int]:
    """(batch of the program, samples in the data), after checking that the data fits the program."""
    wanted = {b.name: b for b in model.signature(program).inputs}
    missing, extra = sorted(wanted.keys() - data.keys()), sorted(data.keys() - wanted.keys())
    if missing or extra:
        raise RuntimeFailure(
            "E0607",
            f"the data holds {_names(data)}; program `{program}` takes {_names(wanted)}",
            hint="name the arrays as the inputs of the program",
        )
    for name in wanted:
        if data[name].ndim == 0:
            raise RuntimeFailure("E0607", f"`{name}` is a single number: it has no axis of samples")
    counts = {name: len(data[name]) for name in wanted}
    if len(set(counts.values())) != 1:
        raise RuntimeFailure("E0607", f"the arrays hold different numbers of samples: {counts}")
    samples = next(iter(counts.values()))
    batch = next(iter(wanted.values())).shape[0]
    for name, binding in wanted.items():
        if data[name].shape[1:] != binding.shape[1:]:
            raise RuntimeFailure(
                "E0607", f"a sample of `{name}` has shape {data[name].shape[1:]}, the program takes {binding.shape[1:]}"
            )
        _check_bounds(data[name], binding)
    if samples < batch:
        raise RuntimeFailure(
            "E0607",
            f"{samples} samples are fewer than one batch of {batch}",
            hint=f"compile with --train-batch {max(samples, 1)} or less",
        )
    return batch, samples


def _check_bounds(array: np.ndarray, binding: TensorInfo) -> None:
    """E0604 with the place in the data; what a step could say is the place in a shuffled batch."""
    if binding.bounds is None or array.dtype.kind not in "iu":
        return
    low, high = binding.bounds
    wrong = np.flatnonzero((array < low) | (array > high))
    if len(wrong):
        value = array.reshape(-1)[wrong[0]]
        more = f"; {len(wrong) - 1} more are wrong" if len(wrong) > 1 else ""
        raise RuntimeFailure(
            "E0604",
            f"`{binding.name}`[{wrong[0]}] is {value}, outside {low} to {high}{more}",
            hint="number the classes from 0, in the order of the model's outputs",
        )


def _names(arrays: Mapping[str, object]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(arrays)) or "nothing"


def _only_output(model: Model) -> str:
    outputs = [b.name for b in model.signature("eval").outputs]
    if len(outputs) != 1:
        raise RuntimeFailure("E0607", f"the model has outputs {outputs}: say which one holds the class scores")
    return outputs[0]


def _labels(model: Model) -> str:
    """The input that holds class indices: the one whose values are bounded."""
    bounded = [b.name for b in model.signature("eval").inputs if b.bounds is not None]
    if len(bounded) != 1:
        raise RuntimeFailure("E0607", f"one input must hold class indices, here {bounded} do")
    return bounded[0]
