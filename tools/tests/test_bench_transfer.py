"""The transfer experiment: draws that share nothing with what they are tested on, rates, seeds, and what is computed
once."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from edgec.compiler.sparse.scheme import Scheme
from edgec.tools.bench import transfer, transfer_task
from edgec.tools.bench.transfer import Arm, Experiment, Interval, Step
from edgec.tools.bench.transfer_task import EVERY, SEEN, SIZE, TASKS, TOPS, Recipe, Run, enlarged
from edgec.tools.search.journal import Journal
from edgec.tools.testing.tiny_nets import tiny_net_onnx

ARM = Arm("bias", Scheme("bias"), 1000)


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty images of each class; a pixel says which is which."""
    for name, count in {"LEARNT": 5, "VALIDATED": 6, "KEPT_BACK": 10}.items():
        monkeypatch.setattr(transfer_task, name, count)
    labels = np.arange(300) % 10
    images = np.zeros((300, 1, 28, 28), np.float32)
    images[:, 0, 14, 14] = np.arange(1, 301) / 1000
    monkeypatch.setattr(transfer_task, "_split", lambda split: (images, labels))


def numbers(data: dict[str, np.ndarray]) -> set[int]:
    return set(np.rint(data["x"].max(axis=(1, 2, 3)) * 1000).astype(int))


def test_classes_are_seen_once() -> None:
    assert sorted(SEEN + TOPS) == list(EVERY)


def test_images_keep_their_pixels_and_get_a_margin() -> None:
    image = np.random.default_rng(0).uniform(0.1, 1, (2, 1, 28, 28)).astype(np.float32)
    x = enlarged(image)
    assert x.shape == (2, 1, SIZE, SIZE)
    np.testing.assert_array_equal(x[:, :, 4:-4:2, 4:-4:2], image)
    np.testing.assert_array_equal(x[:, :, 5:-4:2, 4:-4:2], image)
    assert not x[:, :, :4].any() and not x[:, :, :, -4:].any()


def test_tasks_change_the_images() -> None:
    x = np.random.default_rng(0).uniform(size=(1, 1, SIZE, SIZE)).astype(np.float32)
    assert TASKS["others"].seen(x) is x
    np.testing.assert_array_equal(TASKS["inverted"].seen(x)[0, 0, 0], 1 - x[0, 0, 0])
    np.testing.assert_array_equal(TASKS["rotated"].seen(x)[0, 0, -1], x[0, 0, :, 0])


@pytest.mark.usefixtures("few_images")
def test_draws_differ_by_seed_and_share_nothing_with_the_validation() -> None:
    task = TASKS["others"]
    first, again, other, validation = task.draw(0), task.draw(0), task.draw(1), task.validation()
    assert np.array_equal(first["x"], again["x"]) and numbers(first) != numbers(other)
    assert np.bincount(first["labels"]).tolist() == [5] * 4 and np.bincount(validation["labels"]).tolist() == [6] * 4
    assert len(numbers(first)) == 20 and len(numbers(validation)) == 24
    assert not numbers(validation) & set().union(*(numbers(task.draw(seed)) for seed in range(30)))
    # Image n, counted from 1, is of class (n - 1) % 10; labels are places among the task's classes.
    for row, label in zip(first["x"], first["labels"], strict=True):
        assert (round(row.max() * 1000) - 1) % 10 == TOPS[label]


def test_an_interval_is_students() -> None:
    found = Interval.of([1.0, 2.0, 3.0])
    assert found.mean == 2 and found.half == pytest.approx(4.303 / 3**0.5)
    assert str(Interval(0.5, 0.0123)) == "50.0 +- 1.2"


class Told(Experiment):
    """Whose runs end as they are told to."""

    def __init__(self, folder: Path, ends: Callable[[Run], float | None]):
        super().__init__(folder / "none.onnx", "sgd", 1000, folder, Journal(folder / "journal.jsonl"))
        self.ends, self.runs = ends, []

    def accuracy(self, arm: Arm, run: Run) -> float | None:
        self.runs.append(run)
        return self.ends(run)

    def step(self, arm: Arm) -> Step:
        return Step(900, 1.5)


@pytest.mark.parametrize(("survivor", "chosen"), [(0.9, 0.4), (0.6, 0.2)])
def test_the_rate_is_the_best_of_the_validated_as_they_would_be_tested(tmp_path: Path, survivor, chosen) -> None:
    """At 0.4 one of the draws diverges, and counts as at 0.2: the best where the other gains enough."""

    def ends(run: Run) -> float | None:
        assert run.validated and run.seed in transfer.TUNING
        if run.rate == 0.4 and run.seed == transfer.TUNING[1]:
            return None
        return {0.05: 0.5, 0.1: 0.6, 0.2: 0.7, 0.4: survivor, 0.8: 0.2, 1.6: 0.1}[run.rate]

    assert Told(tmp_path, ends).rate(ARM, "others") == chosen


def test_a_run_that_diverges_is_made_again_at_the_next_lower_rate(tmp_path: Path) -> None:
    experiment = Told(tmp_path, lambda run: None if run.rate > 0.1 else run.rate)
    assert experiment.tested(ARM, Run("others", 0.4, 3)) == 0.1
    assert [run.rate for run in experiment.runs] == [0.4, 0.2, 0.1]
    assert Told(tmp_path, lambda run: None).tested(ARM, Run("others", 0.4, 3)) == 0.0


@pytest.mark.usefixtures("few_images")
@pytest.mark.parametrize(("learnt", "expected"), [(0.25, None), (0.5, 0.4)])
def test_a_net_that_says_the_same_of_everything_diverged(monkeypatch, learnt: float, expected: float | None) -> None:
    """Whatever it does on what it is tested on, where it does no better than a guess on what it was trained on."""
    drawn = TASKS["others"].draw(3)

    def judged(model: object, data: dict[str, np.ndarray], scalars: dict[str, int]) -> SimpleNamespace:
        assert scalars == {"classes": 4}
        return SimpleNamespace(accuracy=learnt if np.array_equal(data["x"], drawn["x"]) else 0.4)

    model = SimpleNamespace(parameters=lambda: {"fc.head": np.zeros((10, 2))}, set_parameters=lambda values: None)
    monkeypatch.setattr(transfer_task.edgec, "load", lambda path, threads: contextlib.nullcontext(model))
    monkeypatch.setattr(transfer_task, "fit", lambda *args, **options: None)
    monkeypatch.setattr(transfer_task, "evaluate", judged)
    monkeypatch.setattr(transfer_task, "HEAD", ".head")
    assert transfer_task.adapted(Path("none.edge"), Run("others", 0.1, 3, validated=True)) == expected


def test_differences_are_those_of_one_seed(tmp_path: Path) -> None:
    experiment = Told(tmp_path, lambda run: 0.5 + 0.1 * run.seed * (not run.validated))
    full = experiment.row(Arm("full", Scheme("full")), "others", 3, None)
    experiment.ends = lambda run: 0.4 + 0.1 * run.seed * (not run.validated)
    row = experiment.row(ARM, "others", 3, full)
    assert full.behind is None and full.accuracy.mean == pytest.approx(0.6)
    assert row.behind.mean == pytest.approx(-0.1) and row.behind.half == pytest.approx(0, abs=1e-12)
    assert row.accuracy.half > 0.2


def test_last_k_takes_the_most_layers_that_the_budget_has_room_for(tmp_path: Path) -> None:
    net = tmp_path / "net.onnx"
    onnx.save(tiny_net_onnx("mcunet", size=SIZE, channels=1), net)
    asked = []

    class Roomy(Experiment):
        def _fits(self, scheme: Scheme) -> bool:
            asked.append(scheme.counted_base[1])
            return asked[-1] <= 17

    assert Roomy(net, "sgd", 1000, tmp_path, Journal(tmp_path / "journal.jsonl")).most_layers() == 17
    assert len(asked) <= 6  # of 43
    asked.clear()
    assert Roomy(net, "sgd", 1000, tmp_path, Journal(tmp_path / "journal.jsonl")).most_layers() == 17 and not asked


@pytest.mark.long
@pytest.mark.usefixtures("few_images")
def test_an_experiment_that_was_ended_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a net that was never trained, on a few images; the second time nothing is compiled."""
    net = tmp_path / "net.onnx"
    onnx.save(tiny_net_onnx("mcunet", classes=len(SEEN), size=SIZE, channels=1), net)
    monkeypatch.setattr(transfer, "pretrained", lambda say: net)
    monkeypatch.setattr(transfer, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(transfer, "RATES", {"adam": (0.001, 0.002)})
    monkeypatch.setattr(transfer_task, "EPOCHS", 1)
    command = [
        "--optimizer",
        "adam",
        "--task",
        "others",
        "--only",
        "head",
        "--seeds",
        "2",
        "--rounds",
        "0",
        "--budget",
        "3MB",
        "--json",
    ]
    first = CliRunner().invoke(transfer.main, command)
    assert first.exit_code == 0, first.output
    monkeypatch.setattr(transfer, "plan", None)
    again = CliRunner().invoke(transfer.main, command)
    assert again.exit_code == 0, again.output
    assert first.stdout == again.stdout and '"arm": "head"' in first.stdout


def test_recipes_that_differ_are_cached_apart() -> None:
    assert Recipe().digest == Recipe().digest != Recipe(epochs=4).digest
