"""The fine-tuning loop by itself: order of samples, schedules, resume, stopping; on a stand-in for the model."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgec.runtime import Checkpoint, RuntimeFailure, Signature, TensorInfo
from edgec.runtime.fit import Evaluation, Progress, batches, evaluate, fit
from edgec.runtime.format import Slot
from edgec.runtime.schedule import Constant, Cosine, Step, WarmUp

BATCH, CLASSES = 4, 3
X, LABELS = np.dtype(np.float32), np.dtype(np.int64)
INPUTS = ((Slot.INPUT, TensorInfo("x", (BATCH,), X)), (Slot.INPUT, TensorInfo("target", (BATCH,), LABELS, (0, 2))))
SCORES = (Slot.OUTPUT, TensorInfo("scores", (BATCH, CLASSES), X))


class StandIn:
    """One weight, moved by every sample it sees and by the rate, so that order and rates leave their mark."""

    def __init__(self):
        self.weight, self.seen = 1.0, []

    def signature(self, program):
        slots = INPUTS if program == "train" else (*INPUTS, SCORES)
        return Signature(program, 0, slots, arena_bytes=0, macs=0, updates=program == "train")

    def step(self, feeds, lr):
        self.seen.append(feeds["x"].astype(int).tolist())
        self.weight = 0.9 * self.weight + lr * float(feeds["x"] @ np.arange(1, BATCH + 1))
        return self.weight

    def eval_step(self, feeds):
        scores = np.eye(CLASSES, dtype=np.float32)[feeds["x"].astype(int) % CLASSES]
        return float(feeds["x"].mean()), {"scores": scores}

    def save_checkpoint(self, path, *, step, seed):
        path.write_text(json.dumps([self.weight, step, seed]))

    def load_checkpoint(self, path):
        self.weight, step, seed = json.loads(path.read_text())
        return Checkpoint(step, seed, b"")


def data(samples: int) -> dict[str, np.ndarray]:
    return {"x": np.arange(samples, dtype=np.float32), "target": np.arange(samples) % CLASSES}


def test_every_sample_comes_once_an_epoch_in_an_order_of_its_own():
    drawn = list(batches(10, BATCH, epochs=2, seed=1))
    indices = np.concatenate([rows for _, rows in drawn])
    assert len(drawn) == 5 and [epoch for epoch, _ in drawn] == [0, 0, 1, 1, 1]
    assert sorted(indices[:10]) == sorted(indices[10:]) == list(range(10))
    assert list(indices[:10]) != list(indices[10:])
    other = np.concatenate([rows for _, rows in batches(10, BATCH, epochs=2, seed=2)])
    assert list(other) != list(indices)


def test_a_run_reports_losses_rates_and_epochs(tmp_path):
    model, seen, evaluated = StandIn(), [], []
    schedule = WarmUp(2, Cosine(0.1))
    done = fit(
        model,
        data(10),
        epochs=2,
        schedule=schedule,
        eval_data=data(7),
        on_progress=seen.append,
        on_evaluation=lambda epoch, evaluation: evaluated.append((epoch, evaluation)),
    )
    assert done.first_step == 0 and len(done.losses) == 5 and not done.stopped
    assert [p.step for p in seen] == [1, 2, 3, 4, 5] and all(p.steps == 5 for p in seen)
    assert [p.lr for p in seen] == [schedule.rate(step, 5) for step in range(5)]
    assert [p.loss for p in seen] == list(done.losses) and isinstance(seen[0], Progress)
    assert [epoch for epoch, _ in evaluated] == [0, 1]
    assert [evaluation for _, evaluation in evaluated] == list(done.evaluations)


@pytest.mark.parametrize("first_leg", [1, 2, 3, 4])
def test_a_resumed_run_is_the_run_that_was_not_interrupted(tmp_path, first_leg):
    checkpoint = tmp_path / "c"
    options = {"epochs": 2, "schedule": Cosine(0.1), "seed": 7}
    whole = fit(StandIn(), data(10), **options)
    counter = iter(range(1, 100))
    first = fit(StandIn(), data(10), **options, checkpoint=checkpoint, stop=lambda: next(counter) == first_leg)
    assert first.stopped and len(first.losses) == first_leg
    second = fit(StandIn(), data(10), **options, checkpoint=checkpoint, resume=True)
    assert second.first_step == first_leg and not second.stopped
    assert first.losses + second.losses == whole.losses
    third = fit(StandIn(), data(10), **options, checkpoint=checkpoint, resume=True)
    assert third.first_step == 5 and third.losses == ()


def test_a_checkpoint_of_another_seed_is_not_resumed(tmp_path):
    fit(StandIn(), data(8), epochs=1, schedule=Constant(0.1), seed=1, checkpoint=tmp_path / "c")
    with pytest.raises(RuntimeFailure) as caught:
        fit(StandIn(), data(8), epochs=2, schedule=Constant(0.1), seed=2, checkpoint=tmp_path / "c", resume=True)
    assert caught.value.code == "E0506" and "seed 1" in caught.value.message


def test_a_stop_at_the_last_step_is_no_stop(tmp_path):
    done = fit(StandIn(), data(8), epochs=1, schedule=Constant(0.1), max_steps=1, stop=lambda: True)
    assert len(done.losses) == 1 and not done.stopped


def test_checkpoints_are_saved_as_often_as_asked(tmp_path):
    saved = []
    model = StandIn()
    model.save_checkpoint = lambda path, *, step, seed: saved.append(step)
    options = {"epochs": 2, "schedule": Constant(0.1), "checkpoint": tmp_path / "c"}
    fit(model, data(10), **options)
    assert saved == [2, 5]
    saved.clear()
    fit(model, data(10), **options, checkpoint_every=2)
    assert saved == [2, 4, 5]


@pytest.mark.parametrize("samples", [4, 5, 7, 8])
def test_evaluation_counts_every_sample_once(samples):
    """The last batch overlaps the one before; its loss is counted in the share of its new samples."""
    evaluation = evaluate(StandIn(), data(samples) | {"target": np.zeros(samples, np.int64)})
    assert isinstance(evaluation, Evaluation) and evaluation.samples == samples
    assert evaluation.accuracy == len(range(0, samples, CLASSES)) / samples


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(8)}, "the data holds"),
        ({"x": np.zeros(7, np.float32)}, "different numbers of samples"),
        ({"x": np.zeros((8, 2), np.float32)}, "a sample of `x`"),
        ({"x": np.float32(0)}, "no axis of samples"),
        ({"x": np.zeros(3, np.float32), "target": np.zeros(3, np.int64)}, "fewer than one batch"),
    ],
)
def test_data_that_does_not_fit_is_refused_before_the_first_step(change, message):
    model = StandIn()
    for train, evaluation in [(data(8) | change, None), (data(8), data(8) | change)]:
        with pytest.raises(RuntimeFailure, match=message) as caught:
            fit(model, train, epochs=1, schedule=Constant(0.1), eval_data=evaluation)
        assert caught.value.code == "E0607" and model.seen == []


def test_schedules():
    assert [Step(1.0, every=2, gamma=0.5).rate(step, 6) for step in range(6)] == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert Cosine(2.0).rate(0, 10) == 2.0 and Cosine(2.0).rate(5, 10) == pytest.approx(1.0)
    assert Cosine(2.0, floor=0.25).rate(10, 10) == pytest.approx(0.5)
    warm = WarmUp(4, Constant(1.0))
    assert [warm.rate(step, 8) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]


def test_labels_are_checked_in_the_order_of_the_data():
    labels = np.array([0, 1, 2, 0, 1, 3, -1, 0])
    with pytest.raises(RuntimeFailure) as caught:
        fit(StandIn(), data(8) | {"target": labels}, epochs=1, schedule=Constant(0.1))
    assert caught.value.code == "E0604" and caught.value.where == "training data"
    assert caught.value.message == "`target`[5] is 3, outside 0 to 2; 1 more are wrong"


def test_a_failing_step_is_named():
    model = StandIn()

    def step(feeds, lr):
        raise RuntimeFailure("E0605", "the loss is not finite")

    model.step = step
    with pytest.raises(RuntimeFailure) as caught:
        fit(model, data(8), epochs=1, schedule=Constant(0.5))
    assert caught.value.where == "step 0, learning rate 0.5"
