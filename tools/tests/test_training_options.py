"""Optimizers, accumulation, guards and short batches on compiled kernels: resumed, moved, refused, applied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgec.backends.targets import find_target
from edgec.backends.tvm.backend import TvmBackend
from edgec.compiler.compile import compile_module
from edgec.compiler.passbase import Options
from edgec.compiler.train import Train
from edgec.graph.parse import parse_module
from edgec.runtime import Model, RuntimeFailure, load
from edgec.runtime.fit import evaluate, fit
from edgec.runtime.layout import write_artifact
from edgec.runtime.schedule import Constant, Cosine
from edgec.tools.device_run import run_on_device
from edgec.tools.testing.programs import initialise

MODEL = """
graph infer {
  input %x: f32[1,3,6,6]
  param %conv.weight: f32[6,3,3,3]
  param %conv.bias: f32[6]
  param %fc.weight: f32[6,5]
  %c: f32[1,6,4,4] = conv2d(%x, %conv.weight)
  %v: f32[6,1,1] = reshape(%conv.bias) {shape=(6,1,1)}
  %b: f32[1,6,4,4] = add(%c, %v)
  %h: f32[1,6,4,4] = hard_swish(%b)
  %m: f32[1,6] = reduce_mean(%h) {axes=(2,3)}
  %scores: f32[1,5] = matmul(%m, %fc.weight)
  output "scores" = %scores
}
"""
SAMPLES = 21  # in batches of 4, the last of an epoch has one


def artifact(path: Path, targets: tuple[str, ...] = ("x86",), skip: frozenset[str] = frozenset(), **train) -> Path:
    options = Options(train=Train(batch=4, **train), skip=skip)
    module = initialise(parse_module(MODEL))
    write_artifact(path, compile_module(module, [TvmBackend(find_target(t)) for t in targets], options).artifact)
    return path


def data() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"x": rng.standard_normal((SAMPLES, 3, 6, 6)).astype(np.float32), "labels": rng.integers(0, 5, SAMPLES)}


def rows(first: int, stop: int) -> dict[str, np.ndarray]:
    return {name: array[first:stop] for name, array in data().items()}


def changing(model: Model) -> dict[str, np.ndarray]:
    return {name: array for name, array in model.parameters().items() if name in model.trained} | model.states()


def assert_same_bits(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for name, array in a.items():
        assert array.tobytes() == b[name].tobytes(), name


EXACT = {"optimizer": "adamw", "accumulate": 4, "clip_norm": 0.5}


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that a state can be wrong in: averages, the count of steps, held gradients."""
    return artifact(tmp_path_factory.mktemp("exact") / "m.edge", ("x86", "rpi4"), **EXACT)


@pytest.mark.parametrize("leg", [1, 3, 4, 6, 7, 11])
def test_a_run_that_stops_anywhere_goes_on_to_the_bit(exact: Path, tmp_path: Path, leg: int) -> None:
    """Amid a round of held gradients, at its end, at the end of an epoch."""
    options = {"epochs": 2, "schedule": Cosine(0.02), "seed": 3}
    with load(exact, threads=1) as model:
        whole, expected = fit(model, data(), **options).losses, changing(model)
    counter = iter(range(1, 100))
    with load(exact, threads=1) as model:
        stop = {"stop": lambda: next(counter) == leg, "checkpoint": tmp_path / "c"}
        first = fit(model, data(), **options, **stop).losses
    with load(exact, threads=1) as model:
        rest = fit(model, data(), **options, checkpoint=tmp_path / "c", resume=True).losses
        assert len(first) == leg and first + rest == whole and len(whole) == 12
        assert_same_bits(changing(model), expected)
        assert (
            model.held_steps == 0 and model.states()["optimizer/steps"] == 4
        )  # two rounds an epoch, one of them short


def test_a_checkpoint_moves_to_other_strategies_and_targets(exact: Path, tmp_path: Path) -> None:
    """Amid a round: into kernels without fusion in another order, and to an emulated Raspberry Pi."""
    other = artifact(tmp_path / "o.edge", skip=frozenset({"fuse_epilogue", "order_operators"}), **EXACT)
    with load(exact, threads=1) as model, load(other, threads=1) as moved:
        for step in range(6):
            model.step(rows(step, step + 4), lr=0.02)
        model.save_checkpoint(tmp_path / "c", step=6)
        assert moved.load_checkpoint(tmp_path / "c").step == 6 and moved.held_steps == 2
        assert_same_bits(changing(moved), changing(model))
        expected = [model.step(rows(step, step + 4), lr=0.02) for step in range(6, 9)]
        got = [moved.step(rows(step, step + 4), lr=0.02) for step in range(6, 9)]
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    feeds = {name: np.concatenate([rows(s, s + 4)[name] for s in (6, 7)]) for name in data()}
    words = {"target": "rpi4", "load_checkpoint": tmp_path / "c", "save_checkpoint": tmp_path / "d"}
    there = run_on_device("qemu", exact, "train", feeds, steps=2, **words)
    np.testing.assert_allclose(there.losses, expected[:2], rtol=1e-5)
    assert there.outputs["due"] == 1
    words["load_checkpoint"] = tmp_path / "d"
    run_on_device("qemu", exact, "apply", {"lr": np.float32(0.02)}, **words)
    with load(exact, threads=1) as model:
        assert model.load_checkpoint(tmp_path / "d").step >= 8 and model.held_steps == 0
        np.testing.assert_allclose(model.step(rows(8, 12), lr=0.02), expected[2], rtol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("options", [{}, {"optimizer": "lion"}, {"optimizer": "adam", "clip_value": 0.1}], ids=str)
def test_rounds_of_short_batches_are_one_step_of_a_large_one(tmp_path: Path, options: dict) -> None:
    held, large = artifact(tmp_path / "h.edge", accumulate=3, **options), tmp_path / "l.edge"
    whole = Options(train=Train(batch=12, **options))
    write_artifact(
        large, compile_module(initialise(parse_module(MODEL)), [TvmBackend(find_target("x86"))], whole).artifact
    )
    with load(held, threads=1) as model, load(large, threads=1) as other:
        for round_ in range(2):
            start = 9 * round_
            before = model.parameters()["fc.weight"]
            for first, stop in ((0, 4), (4, 5), (5, 9)):
                np.testing.assert_array_equal(model.parameters()["fc.weight"], before)
                model.step(rows(start + first, start + stop), lr=0.01)
            other.step(rows(start, start + 9), lr=0.01)
        for name, array in other.parameters().items():
            np.testing.assert_allclose(model.parameters()[name], array, rtol=0, atol=2e-6, err_msg=name)


def overflow() -> dict[str, np.ndarray]:
    """Images at which the loss is finite and the norm of the gradients is not: features of 1e37, scores of 0."""
    feeds = rows(0, 4)
    return feeds | {"x": np.full_like(feeds["x"], 1e37)}


def flat(model: Model) -> None:
    """Scores of 0 whatever the image, so that the loss is log 5, and activations as large as the image."""
    weight = np.zeros((6, 3, 3, 3), np.float32)
    weight[:, 0, 0, 0] = 1
    model.set_parameters(
        {"conv.weight": weight, "conv.bias": np.zeros(6, np.float32), "fc.weight": np.zeros((6, 5), np.float32)}
    )


@pytest.mark.parametrize("accumulate", [pytest.param(1, marks=pytest.mark.long), 2])
def test_gradients_that_overflow_are_refused_where_asked(tmp_path: Path, accumulate: int) -> None:
    with load(artifact(tmp_path / "m.edge", guard="grads", accumulate=accumulate), threads=1) as model:
        flat(model)
        before = model.parameters()
        for _ in range(accumulate - 1):
            model.step(rows(0, 4), lr=0.1)
        with pytest.raises(RuntimeFailure, match="E0613.*the gradients are not finite; nothing was updated"):
            model.step(overflow(), lr=0.1)
        assert_same_bits(model.parameters(), before)
        for _ in range(accumulate):  # what was held with them is dropped
            model.step(rows(4, 8), lr=0.1)
        assert model.not_finite() is None and not np.array_equal(model.parameters()["fc.weight"], before["fc.weight"])


def test_gradients_that_overflow_are_reported_after_the_step(tmp_path: Path) -> None:
    with load(artifact(tmp_path / "m.edge"), threads=1) as model:
        flat(model)
        assert np.isfinite(model.step(overflow(), lr=1e4))
        assert model.not_finite() == "fc.weight"
        with pytest.raises(RuntimeFailure, match="E0605.*`fc.weight` is not either") as caught:
            model.step(rows(0, 4), lr=0.1)
        assert "--guard grads" in caught.value.hint
        flat(model)
        with pytest.raises(RuntimeFailure, match="E0613.*`fc.weight` is not finite any more"):
            fit(model, overflow(), epochs=1, schedule=Constant(1e4))  # without a checkpoint too
        for name in ("fit", "again"):
            with pytest.raises(RuntimeFailure):
                fit(model, data(), epochs=1, schedule=Cosine(0.1), checkpoint=tmp_path / name)
            assert not (tmp_path / name).exists()


def test_short_batches_evaluate_as_they_are(tmp_path: Path) -> None:
    with load(artifact(tmp_path / "m.edge"), threads=1) as model:
        alone = [model.eval_step(rows(i, i + 1)) for i in range(3)]
        loss, outputs = model.eval_step(rows(0, 3))
        np.testing.assert_allclose(loss, np.mean([one for one, _ in alone]), rtol=1e-6)
        assert outputs["scores"].shape == (3, 5)
        np.testing.assert_array_equal(outputs["scores"], np.concatenate([o["scores"] for _, o in alone]))
        with pytest.raises(RuntimeFailure, match="E0604.*`rows`"):
            model.step(rows(0, 4), lr=0.1, rows=5)
        with pytest.raises(RuntimeFailure, match="E0603"):
            model.step(rows(0, 5), lr=0.1)


@pytest.mark.parametrize(
    "options",
    [{"class_weights": (0.1, 1, 5, 0, 2)}, {"ignore_index": 3, "class_weights": (0.1, 1, 5, 0.5, 2)}],
    ids=str,
)
def test_an_evaluation_is_that_of_one_batch_of_all(tmp_path: Path, options: dict) -> None:
    """Six batches whose labels weigh differently; in one of them no label counts."""
    everything = data()
    everything["labels"][4:8] = 3
    with load(artifact(tmp_path / "m.edge", **options), threads=1) as model:
        alone = [model.eval_step({n: a[i : i + 1] for n, a in everything.items()})[1] for i in range(SAMPLES)]
        scores = np.concatenate([outputs["scores"] for outputs in alone]).astype(np.float64)
        found = evaluate(model, everything).loss
    labels = everything["labels"]
    weights = np.array(options["class_weights"])[labels] * (labels != options.get("ignore_index"))
    losses = np.log(np.exp(scores).sum(1)) - scores[np.arange(SAMPLES), labels]
    np.testing.assert_allclose(found, (weights * losses).sum() / weights.sum(), rtol=1e-5)


def test_ignored_labels_pass_and_other_strays_do_not(tmp_path: Path) -> None:
    with load(artifact(tmp_path / "m.edge", ignore_index=-100), threads=1) as model:
        feeds = rows(0, 4)
        expected = model.eval_step({name: array[1:] for name, array in feeds.items()})[0]
        feeds["labels"][0] = -100
        np.testing.assert_allclose(model.eval_step(feeds)[0], expected, rtol=1e-6)
        for wrong in (-1, -99, -101, 5):
            feeds["labels"][0] = wrong
            with pytest.raises(RuntimeFailure, match=rf"E0604.*`labels`\[0\] is {wrong}, outside 0 to 4"):
                model.step(feeds, lr=0.1)
