"""The fine-tuning loop by itself: order of samples, schedules, resume, stopping; on a stand-in for the model."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgec.runtime import Checkpoint, RuntimeFailure, Signature, TensorInfo
from edgec.runtime.evaluate import _hits
from edgec.runtime.fit import Evaluation, Progress, batches, evaluate, fit
from edgec.runtime.format import Slot
from edgec.runtime.rows import padded
from edgec.runtime.schedule import Constant, Cosine, Step, WarmUp

BATCH, CLASSES = 4, 3
X, LABELS = np.dtype(np.float32), np.dtype(np.int64)
INPUTS = ((Slot.INPUT, TensorInfo("x", (BATCH,), X)), (Slot.INPUT, TensorInfo("target", (BATCH,), LABELS, (0, 2))))
ROWS = (Slot.SCALAR, TensorInfo("rows", (), np.dtype(np.int32), (1, BATCH)))
SCORES = (Slot.OUTPUT, TensorInfo("scores", (BATCH, CLASSES), X))


class StandIn:
    """One weight, moved by every sample it sees and by the rate, so that order and rates leave their mark."""

    def __init__(self, masked=True, accumulate=1):
        self.weight, self.seen, self.applied = 1.0, [], []
        self.masked, self.accumulate, self.held = masked, accumulate, 0

    def signature(self, program):
        slots = (*INPUTS, *([ROWS] if self.masked else []), *([] if program == "train" else [SCORES]))
        return Signature(program, 0, slots, arena_bytes=0, macs=0, updates=program == "train")

    def step(self, feeds, lr):
        self.seen.append(feeds["x"].astype(int).tolist())
        self.weight = 0.9 * self.weight + lr * float(feeds["x"] @ np.arange(1, len(feeds["x"]) + 1))
        self.held += 1
        if self.held == self.accumulate:
            self.apply(lr)
        return self.weight

    @property
    def held_steps(self):
        return self.held

    def apply(self, lr):
        self.applied.append(self.held)
        self.held = 0

    def not_finite(self):
        return None if np.isfinite(self.weight) else "weight"

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
    assert [(epoch, len(rows)) for epoch, rows in drawn] == [(0, 4), (0, 4), (0, 2), (1, 4), (1, 4), (1, 2)]
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
    assert done.first_step == 0 and len(done.losses) == 6 and not done.stopped
    assert [p.step for p in seen] == [1, 2, 3, 4, 5, 6] and all(p.steps == 6 for p in seen)
    assert [p.lr for p in seen] == [schedule.rate(step, 6) for step in range(6)]
    assert [p.loss for p in seen] == list(done.losses) and isinstance(seen[0], Progress)
    assert [epoch for epoch, _ in evaluated] == [0, 1]
    assert [evaluation for _, evaluation in evaluated] == list(done.evaluations)


@pytest.mark.parametrize("first_leg", [1, 2, 3, 4, 5])
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
    assert third.first_step == 6 and third.losses == ()


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
    assert saved == [3, 6]
    saved.clear()
    fit(model, data(10), **options, checkpoint_every=2)
    assert saved == [2, 4, 6]
    saved.clear()
    fit(model, data(10), **options, checkpoint_every=4)
    assert saved == [4, 6]


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("samples", [4, 5, 7, 8])
def test_evaluation_counts_every_sample_once(samples, masked):
    """The last batch is short, or overlaps the one before: its loss is counted in the share of its new samples."""
    evaluation = evaluate(StandIn(masked), data(samples) | {"target": np.zeros(samples, np.int64)})
    assert not masked or evaluation.loss == pytest.approx((samples - 1) / 2)
    assert isinstance(evaluation, Evaluation) and evaluation.samples == samples
    assert evaluation.accuracy == len(range(0, samples, CLASSES)) / samples


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(8)}, "the data holds"),
        ({"x": np.zeros(7, np.float32)}, "different numbers of samples"),
        ({"x": np.zeros((8, 2), np.float32)}, "a sample of `x`"),
        ({"x": np.float32(0)}, "no axis of samples"),
        ({"x": np.zeros(0, np.float32), "target": np.zeros(0, np.int64)}, "no samples"),
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


def test_fewer_samples_than_a_batch_will_do_where_rows_can_be_left_out():
    model = StandIn()
    assert len(fit(model, data(3), epochs=2, schedule=Constant(0.1)).losses) == 2
    assert [len(seen) for seen in model.seen] == [3, 3]
    with pytest.raises(RuntimeFailure, match="3 samples are fewer than one batch of 4"):
        fit(StandIn(masked=False), data(3), epochs=1, schedule=Constant(0.1))


def test_a_program_that_cannot_leave_rows_out_sees_samples_again():
    model = StandIn(masked=False)
    fit(model, data(5), epochs=1, schedule=Constant(0.1))
    assert [len(seen) for seen in model.seen] == [4, 4] and len(set(model.seen[1])) == 1
    assert set(sum(model.seen, [])) == set(range(5))


@pytest.mark.parametrize(("accumulate", "applied"), [(1, [1] * 6), (2, [2, 1, 2, 1]), (5, [3, 3])])
def test_held_gradients_are_applied_at_the_end_of_an_epoch(tmp_path, accumulate, applied):
    model = StandIn(accumulate=accumulate)
    fit(model, data(10), epochs=2, schedule=Constant(0.1))
    assert model.applied == applied


def test_the_best_state_is_kept_and_remembered(tmp_path):
    """Losses fall, then rise: of three evaluations the second is the best, also for a run that goes on later."""
    model, paths = StandIn(), {"best_checkpoint": tmp_path / "best", "checkpoint": tmp_path / "last"}
    losses = iter([3.0, 1.0, 2.0])
    model.eval_step = lambda feeds: (losses_now[0], {"scores": np.zeros((len(feeds["x"]), CLASSES), np.float32)})
    losses_now = [0.0]
    schedule = Constant(0.1)

    def on_progress(progress):
        losses_now[0] = next(losses)

    options = {"schedule": schedule, "eval_data": data(4), "on_progress": on_progress}
    done = fit(model, data(4), epochs=3, **options, **paths)
    assert done.best.loss == 1.0 and json.loads(paths["best_checkpoint"].read_text())[1] == 2
    losses, losses_now[0] = iter([1.5]), 1.0
    again = fit(model, data(4), epochs=4, **options, **paths, resume=True)
    assert again.best.loss == 1.0 and again.first_step == 3
    assert json.loads(paths["best_checkpoint"].read_text())[1] == 2
    losses, losses_now[0] = iter([0.5]), 1.0
    assert fit(model, data(4), epochs=5, **options, **paths, resume=True).best.loss == 0.5
    assert json.loads(paths["best_checkpoint"].read_text())[1] == 5


def test_a_state_that_is_not_finite_replaces_no_checkpoint(tmp_path):
    model, path = StandIn(), tmp_path / "c"
    fit(model, data(4), epochs=1, schedule=Constant(0.1), checkpoint=path)
    before, model.weight = path.read_text(), float("inf")
    with pytest.raises(RuntimeFailure, match="`weight` is not finite any more") as caught:
        fit(model, data(4), epochs=1, schedule=Constant(0.1), checkpoint=path)
    assert caught.value.code == "E0613" and path.read_text() == before


def test_accuracy_is_of_labels_wherever_classes_stand():
    info = TensorInfo("labels", (2, 3), LABELS, (0, 4), ignored=-1)
    labels = np.array([[0, 1, 2], [-1, 4, 0]])
    scores = np.eye(5)[np.where(labels < 0, 0, labels)]
    scores[0, 0] = scores[0, 0][::-1]  # one is wrong
    assert _hits(scores, labels, info) == _hits(scores.transpose(0, 2, 1), labels, info) == (4, 5)
    assert _hits(np.zeros((2, 7)), labels, info) == (0, 0)


def test_better_is_more_accurate_or_else_less_wrong():
    assert Evaluation(2.0, 0.9, 1).better_than(Evaluation(1.0, 0.8, 1))
    assert Evaluation(1.0, 0.8, 1).better_than(Evaluation(2.0, 0.8, 1))
    assert not Evaluation(1.0, 0.8, 1).better_than(Evaluation(1.0, 0.8, 1))
    assert Evaluation(1.0, None, 1).better_than(Evaluation(2.0, None, 1))


def test_short_feeds_are_filled_up_with_their_last_sample():
    signature = StandIn().signature("train")
    full, rows = padded(signature, {"x": np.array([1.0, 2.0]), "target": [0, 1]})
    assert rows == 2 and full["rows"] == 2
    np.testing.assert_array_equal(full["x"], [1, 2, 2, 2])
    np.testing.assert_array_equal(full["target"], [0, 1, 1, 1])
    for left_alone in (
        {"x": np.zeros(4), "target": np.zeros(4)},
        {"x": np.zeros(2), "target": np.zeros(3)},
        {"x": np.zeros(2)},
        {"x": np.zeros(2), "target": np.zeros(2), "rows": 1},
        {"x": 1.0, "target": np.zeros(2)},
        {"x": np.zeros(0), "target": np.zeros(0)},
    ):
        assert padded(signature, left_alone) == (left_alone, None)
