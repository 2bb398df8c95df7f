"""Variants for GPUs, on a driver that is not one (stub_cuda.c): which image, what is copied when, every refusal.

Here and on aarch64 under emulation, by `edgec-run`, which the driver's library is put in the way of.
"""

import dataclasses
import re

import numpy as np
import pytest
from sample_artifact import (
    COLUMNS,
    DEVICE_BUFFERS,
    HOST,
    device_variant,
    feeds,
    guarded_variant,
    placements,
    sample,
    variant,
)
from stub_runner import MACHINES, runner_on

from edgec.runtime import load
from edgec.runtime.check import check_artifact
from edgec.runtime.errors import RuntimeFailure
from edgec.runtime.format import Buffer, Region
from edgec.runtime.layout import write_artifact

STEPS = 4


@pytest.fixture(scope="module", params=MACHINES)
def run(request, tmp_path_factory):
    return runner_on(request.param, tmp_path_factory)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    path = tmp_path_factory.mktemp("artifact") / "sample.edge"
    write_artifact(path, sample(variant(HOST), device_variant(87), device_variant(90)))
    return path


def whole(count):
    parts = [feeds(seed) for seed in range(count)]
    return {name: np.concatenate([part[name] for part in parts]) for name in ("x", "labels")}


def test_training_and_checkpoints(run, artifact, tmp_path):
    """The bits of the processor; a checkpoint of either goes on with the other."""
    lr = {"lr": np.full(STEPS, 0.05, np.float32)}
    with load(artifact, threads=1, target=HOST.name.lower()) as model:
        expected = [model.step(feeds(seed), lr=0.05) for seed in range(STEPS)]
        again = [model.step(feeds(seed), lr=0.05) for seed in range(STEPS)]
        parameters = model.parameters()
    saved = tmp_path / "c.edgeckpt"
    done, out = run(
        artifact, "train", whole(STEPS) | lr, "--steps", str(STEPS), "--save-checkpoint", saved, STUB_CAPABILITY="87"
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(out["losses"], np.float32(expected))
    # Recorded once, up to the guard and behind it, and replayed in every step.
    assert re.findall(r"graph of (\d+)", done.stderr) == ["3", "2"]

    with load(artifact, threads=1, target=HOST.name.lower()) as model:
        model.load_checkpoint(saved)
        assert [model.step(feeds(seed), lr=0.05) for seed in range(STEPS)] == again
        np.testing.assert_array_equal(model.parameters()["w"], parameters["w"])
        model.save_checkpoint(saved)
    done, out = run(
        artifact, "train", whole(STEPS) | lr, "--steps", str(STEPS), "--load-checkpoint", saved, STUB_CAPABILITY="87"
    )
    assert done.returncode == 0 and out["losses"][0] < again[0]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    path = tmp_path_factory.mktemp("guarded") / "sample.edge"
    write_artifact(path, sample(variant(HOST), guarded_variant(87)))
    return path


def test_a_step_is_one_launch(run, guarded):
    """Where what updates looks at the loss itself: one graph, launched once a step."""
    with load(guarded, threads=1, target=HOST.name.lower()) as model:
        expected = [model.step(feeds(seed), lr=0.05) for seed in range(STEPS)]
    lr = {"lr": np.full(STEPS, 0.05, np.float32)}
    done, out = run(guarded, "train", whole(STEPS) | lr, "--steps", str(STEPS), STUB_CAPABILITY="87")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(out["losses"], np.float32(expected))
    assert re.findall(r"graph of (\d+)", done.stderr) == ["5"]
    assert re.findall(r"launch (\d+)", done.stderr)[-1] == str(STEPS)


def test_a_loss_that_is_not_finite_is_reported_and_updates_nothing(run, guarded):
    arrays = feeds() | {"lr": np.float32(0.05)}
    done, _ = run(guarded, "train", arrays, STUB_CAPABILITY="87")
    assert done.returncode == 0 and "updates" in done.stderr
    arrays["x"][0] = np.nan
    done, _ = run(guarded, "train", arrays, STUB_CAPABILITY="87")
    assert done.returncode == 1 and "error[E0605]" in done.stderr
    assert "launch 1" in done.stderr and "updates" not in done.stderr


def test_an_update_before_a_guard_must_read_what_it_does(tmp_path):
    """Who updates without looking may not stand before a guard, on a device either; nor may a processor's kernel."""
    plain, good = device_variant(87), guarded_variant(87)
    calls = good.programs[1].calls
    blind = (*calls[:3], *plain.programs[1].calls[4:], calls[-1])
    early = (*calls[:4], calls[-1], *calls[4:], *calls[:3])
    host = dataclasses.replace(variant(HOST), programs=with_calls(variant(HOST), blind))
    for bad in (
        dataclasses.replace(good, programs=with_calls(good, blind)),
        dataclasses.replace(good, programs=with_calls(good, early)),
        host,
    ):
        path = tmp_path / "bad.edge"
        write_artifact(path, sample(bad))
        with pytest.raises(RuntimeFailure, match="CALLS"):
            check_artifact(path)


def with_calls(of, calls):
    programs = list(of.programs)
    programs[1] = dataclasses.replace(programs[1], calls=calls)
    return tuple(programs)


@pytest.mark.parametrize(
    ("capability", "image"), [("87", "sm_87"), ("88", "sm_87"), ("89", "sm_87"), ("90", "sm_90"), ("86", None)]
)
def test_the_image_of_the_device(run, artifact, capability, image):
    """That of its major number and no higher minor one; without one, the processor's code."""
    done, out = run(artifact, "infer", {"x": feeds()["x"]}, STUB_CAPABILITY=capability)
    assert done.returncode == 0 or image is None
    assert re.findall(r"loads (\S+)", done.stderr) == ([image] if image else [])
    if image:
        with load(artifact, threads=1, target=HOST.name.lower()) as model:
            np.testing.assert_array_equal(out["y"], model.run({"x": feeds()["x"]})["y"])


def test_profiled(run, artifact, tmp_path):
    """Call by call, without recordings."""
    arrays = {"x": feeds()["x"]}
    profile = tmp_path / "profile.json"
    done, _ = run(artifact, "infer", arrays, "--profile", profile, STUB_CAPABILITY="90")
    assert done.returncode == 0 and "graph" not in done.stderr
    assert "sample_dense" in profile.read_text()


def test_wide_kernels_and_zeros(run, artifact):
    done, out = run(artifact, "wide", {}, STUB_CAPABILITY="87")
    with load(artifact, threads=1, target=HOST.name.lower()) as model:
        np.testing.assert_array_equal(out["wide"], model.run({}, program="wide")["wide"])
    assert "graph of 2" in done.stderr


@pytest.fixture(scope="module")
def only_cuda(tmp_path_factory):
    path = tmp_path_factory.mktemp("cuda") / "sample.edge"
    write_artifact(path, sample(device_variant(87)))
    return path


@pytest.mark.parametrize(
    ("drivers", "environment", "code", "words"),
    [
        (False, {}, "E0504", "driver is not installed"),
        (True, {}, "E0504", "no variant for the GPUs"),
        (True, {"STUB_CAPABILITY": "90"}, "E0504", "no variant for the GPUs"),
        (True, {"STUB_CAPABILITY": "87", "STUB_FREE": "4096"}, "E0609", "5696 bytes are needed, 4096 are free"),
    ],
)
def test_refused(run, only_cuda, drivers, environment, code, words):
    done, out = run(only_cuda, "infer", {"x": feeds()["x"]}, drivers=drivers, **environment)
    assert done.returncode == 1 and not out
    assert f"error[{code}]" in done.stderr and words in done.stderr


def test_a_loss_that_is_not_finite_stops_the_step(run, artifact, tmp_path):
    arrays = feeds() | {"lr": np.float32(0.05)}
    arrays["x"][0] = np.nan
    saved = tmp_path / "c.edgeckpt"
    done, _ = run(artifact, "train", arrays, "--save-checkpoint", saved, STUB_CAPABILITY="87")
    assert done.returncode == 1 and "error[E0605]" in done.stderr
    assert re.findall(r"graph of (\d+)", done.stderr) == ["3"], "nothing behind the guard was begun"


def test_labels_are_checked_before_anything_is_copied(run, artifact):
    arrays = feeds() | {"lr": np.float32(0.05)}
    arrays["labels"][3] = COLUMNS
    done, _ = run(artifact, "train", arrays, STUB_CAPABILITY="87")
    assert done.returncode == 1 and "error[E0604]" in done.stderr and "graph" not in done.stderr


def replaced(values, name, value):
    return tuple((values | {name: value}).values())


@pytest.mark.parametrize(
    ("change", "section"),
    [
        ({"placements": placements(), "param_bytes": 256}, "PLACEMENTS"),
        ({"buffers": replaced(DEVICE_BUFFERS, "scale", Buffer(Region.WEIGHTS, 0, 24, tensor=1))}, "BUFFERS"),
        ({"code": b""}, "CODE"),
        ({"kernels": tuple(dataclasses.replace(k, threads=0) for k in device_variant(87).kernels)}, "KERNELS"),
        ({"kernels": tuple(dataclasses.replace(k, threads=1025) for k in device_variant(87).kernels)}, "KERNELS"),
    ],
)
def test_malformed(tmp_path, change, section):
    """What a device cannot have is refused, on every machine."""
    path = tmp_path / "bad.edge"
    write_artifact(path, sample(dataclasses.replace(device_variant(87), **change)))
    with pytest.raises(RuntimeFailure, match=section) as caught:
        check_artifact(path)
    assert caught.value.code == "E0502"
