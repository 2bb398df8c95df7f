"""Models from Python: running, training, errors; the kernels are C compiled into an image."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
from sample_artifact import (
    ARENA,
    COLUMNS,
    HOST,
    INNER,
    LABELS,
    ROWS,
    feeds,
    originals,
    reference,
    sample,
    tensors,
    unstarted,
    variant,
)
from tampering import Tampered

from edgec.runtime import RuntimeFailure, load, tables
from edgec.runtime.abi import Arch
from edgec.runtime.dtypes import numpy_dtype
from edgec.runtime.format import Program
from edgec.runtime.layout import artifact_bytes, write_artifact
from edgec.runtime.library import Status, library_path
from edgec.runtime.tables import Section

WEIGHTS = {tensor.name: tensor.data for tensor in tensors()}


def test_the_library_is_newer_than_its_sources():
    sources = (library_path().parent / "csrc").iterdir()
    newest = max(source.stat().st_mtime for source in sources)
    assert library_path().stat().st_mtime >= newest, "run `make lib`"


def test_what_it_is(model):
    assert model.target == HOST.name.lower() and model.fingerprint == bytes(range(16))
    assert model.programs == ("infer", "train", "eval", "wide")
    assert [(i.name, i.shape, i.dtype) for i in model.inputs] == [("x", (ROWS, INNER), np.dtype(np.float32))]
    assert [(o.name, o.shape) for o in model.outputs] == [("y", (ROWS, COLUMNS))]
    assert (model.param_bytes, model.state_bytes, model.arena_bytes) == (256, 64, 5184)
    train = model.signature("train")
    assert [i.name for i in train.inputs] == ["x", "labels"] and train.inputs[1].bounds == (0, COLUMNS - 1)
    assert [s.name for s in train.scalars] == ["lr"] and train.loss.name == "loss" and train.updates
    assert not model.signature("infer").updates and model.signature("infer").macs == ROWS * INNER * COLUMNS


def test_infer(model):
    """Through a panel storage, a repacked parameter and a constant in the file."""
    x = feeds()["x"]
    y = model.run({"x": x})["y"]
    np.testing.assert_allclose(y, reference(WEIGHTS, x), rtol=1e-5, atol=1e-5)
    again = model.run({"x": x})["y"]
    np.testing.assert_array_equal(y, again)
    assert not np.shares_memory(y, again)


def test_24_pointers_and_zero(model):
    """sum of (i + 1) * scale[4:] over 23 pointers."""
    expected = sum(np.float32(i + 1) * WEIGHTS["scale"][4:] for i in range(23))
    np.testing.assert_allclose(model.run({}, program="wide")["wide"], expected, rtol=1e-5)


def train_reference(x, labels, lr, steps):
    """w and losses in float64."""
    w, losses = WEIGHTS["w"].astype(np.float64), []
    for _ in range(steps):
        y = reference({**WEIGHTS, "w": w}, x)
        error = np.zeros_like(y)
        error[np.arange(ROWS), labels] = y[np.arange(ROWS), labels] - 1
        losses.append((error**2).sum() / ROWS)
        w = w - lr * (x.T @ (2 * error / ROWS)) * WEIGHTS["scale"]
    return w, losses


def test_training(model):
    batch = feeds(1)
    before, _ = model.eval_step(batch)
    losses = [model.step(batch, lr=0.05) for _ in range(5)]
    w, expected = train_reference(batch["x"].astype(np.float64), batch["labels"], 0.05, 5)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    assert before == losses[0]
    parameters = model.parameters()
    np.testing.assert_allclose(parameters["w"], w, rtol=1e-4, atol=1e-5)
    for name in ("shift", "frozen"):
        np.testing.assert_array_equal(parameters[name], WEIGHTS[name])
    assert model.trained == ("w",)
    np.testing.assert_array_equal(parameters["tied"], parameters["w"])
    for original in originals()[1:3]:
        assert parameters[original.name].dtype == original.data.dtype
        np.testing.assert_array_equal(parameters[original.name], original.data)
    assert parameters.keys() == {"w", "shift", "frozen", "tied", "unfolded", "positions", "batches"}
    assert model.states()["steps"] == 12 and parameters["batches"] == 5 + 12
    loss, outputs = model.eval_step(batch)
    assert loss < losses[-1]
    np.testing.assert_array_equal(outputs["y"], model.run({"x": batch["x"]})["y"])


def test_states_that_begin_as_zeros(tmp_path):
    """Their regions hold whatever the allocator gave; what the file holds lies where it lay."""
    path = tmp_path / "a.edge"
    tampered = Tampered(artifact_bytes(unstarted(sample(variant(HOST)))))
    tampered.records(Section.TENSORS)[0]["offset"] = tables.ZEROS
    path.write_bytes(tampered.bytes())
    with load(path) as model:
        assert model.states()["steps"] == 0
        parameters = model.parameters()
        assert not parameters["w"].any()
        np.testing.assert_array_equal(parameters["shift"], WEIGHTS["shift"])
        model.step(feeds(), lr=0.01)
        assert model.states()["steps"] == 1 and model.parameters()["w"].any()


def test_damage_to_originals_is_refused_when_they_are_asked_for(tmp_path):
    """A run needs none of them."""
    data = bytearray(artifact_bytes(sample(variant(HOST))))
    row = next(row for row in Tampered(bytes(data)).sections if row["type"] == Section.ORIGINALS)
    data[int(row["offset"]) + int(row["bytes"]) // 2] ^= 1
    (tmp_path / "m.edge").write_bytes(data)
    with load(tmp_path / "m.edge", threads=1) as model:
        model.run({"x": feeds()["x"]})
        for attempt in (model.parameters, lambda: model.set_parameters({"tied": WEIGHTS["w"]})):
            with pytest.raises(RuntimeFailure, match=r"error\[E0502\]"):
                attempt()


def test_parameters_are_set_by_all_of_their_names(model):
    values = model.parameters()
    model.set_parameters({"tied": values["w"] + 1})
    np.testing.assert_array_equal(model.parameters()["w"], values["w"] + 1)
    with pytest.raises(RuntimeFailure, match=r"error\[E0610\].*`unfolded` is frozen"):
        model.set_parameters({"unfolded": values["unfolded"]})


def test_the_guard_stops_before_the_update(model):
    batch = feeds()
    before = model.parameters()["w"]
    batch["x"][3, 4] = np.inf
    with pytest.raises(RuntimeFailure, match=r"error\[E0605\]"):
        model.step(batch, lr=0.1)
    np.testing.assert_array_equal(model.parameters()["w"], before)
    assert model.states()["steps"] == 7
    assert math.isfinite(model.step(feeds(), lr=0.1))


@pytest.mark.parametrize("value", [-1, COLUMNS, 2**40])
def test_labels_out_of_range(model, value):
    batch = feeds()
    before = model.parameters()["w"]
    batch["labels"][17] = value
    for step in (lambda: model.step(batch, lr=0.1), lambda: model.eval_step(batch)):
        with pytest.raises(RuntimeFailure) as caught:
            step()
        assert caught.value.code == "E0604"
        assert caught.value.message == f"`labels`[17] is {value}, outside 0 to {COLUMNS - 1}"
    np.testing.assert_array_equal(model.parameters()["w"], before)


@pytest.mark.parametrize(
    "dtype, low, high", [("i8", -2, 5), ("u8", 1, 200), ("i32", -(2**31) + 1, 5), ("i64", 0, 2**40)]
)
def test_bounds_of_every_integer_type(tmp_path, dtype, low, high):
    """A program without calls, so that nothing but the check happens."""
    labels = dataclasses.replace(LABELS, dtype=dtype, shape=(2, 3), low=low, high=high)
    host = dataclasses.replace(variant(HOST), programs=(Program("check", ARENA, (), (labels,)),))
    write_artifact(tmp_path / "a.edge", sample(host))
    with load(tmp_path / "a.edge", threads=1) as model:
        inside = np.array([[low, high, low], [high, 1, 2]], numpy_dtype(dtype))
        model.run({"labels": inside}, program="check")
        for value in (low - 1, high + 1):
            outside = inside.copy()
            outside[1, 0] = value
            with pytest.raises(RuntimeFailure, match=rf"E0604.*`labels`\[1, 0\] is {value}, outside {low} to {high}"):
                model.run({"labels": outside}, program="check")


@pytest.mark.parametrize(
    "change, code, words",
    [
        ({"z": 1}, "E0601", "no input or scalar `z`"),
        ({"lr": None}, "E0601", "needs `lr`"),
        ({"x": np.zeros((ROWS, INNER))}, "E0602", "float64"),
        ({"x": np.zeros((ROWS, INNER), np.int32)}, "E0602", "int32"),
        ({"x": "abc"}, "E0602", "abc"),
        ({"labels": [0.5] * ROWS}, "E0602", "int64"),
        ({"labels": [2**70] * ROWS}, "E0602", "int64"),
        ({"x": np.zeros((ROWS, INNER + 1), np.float32)}, "E0603", f"({ROWS}, {INNER + 1})"),
        ({"x": np.zeros((1, ROWS, INNER), np.float32)}, "E0603", f"({ROWS}, {INNER})"),
        ({"lr": [0.1]}, "E0603", "lr"),
    ],
)
def test_wrong_feeds(model, change, code, words):
    batch = {**feeds(), "lr": 0.1} | change
    with pytest.raises(RuntimeFailure) as caught:
        model.step({name: value for name, value in batch.items() if value is not None})
    assert caught.value.code == code and words in str(caught.value)
    assert str(caught.value).startswith(f"error[{code}]: ")


def test_feeds_that_lose_nothing_are_taken(model):
    batch = feeds()
    expected, _ = model.eval_step(batch)
    strided = np.asfortranarray(batch["x"])[::1]
    for labels in (batch["labels"].astype(np.int32), batch["labels"].tolist(), batch["labels"].astype(np.uint8)):
        assert model.eval_step({"x": strided, "labels": labels})[0] == expected


def test_no_such_program(model):
    with pytest.raises(RuntimeFailure, match="E0606.*`training`"):
        model.run({}, program="training")


def test_set_parameters(model):
    x = feeds()["x"]
    changed = {"w": np.ones((INNER, COLUMNS), np.float32), "shift": WEIGHTS["shift"] * 2, "steps": 40}
    model.set_parameters(changed)
    np.testing.assert_allclose(model.run({"x": x})["y"], reference({**WEIGHTS, **changed}, x), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(model.parameters()["shift"], changed["shift"])
    assert model.states()["steps"] == 40


@pytest.mark.parametrize(
    "name, value, code",
    [
        ("none", 1.0, "E0601"),
        ("frozen", WEIGHTS["frozen"], "E0610"),
        ("w", WEIGHTS["w"].T, "E0603"),
        ("w", WEIGHTS["w"].astype(np.float64), "E0602"),
    ],
)
def test_set_parameters_is_all_or_nothing(model, name, value, code):
    with pytest.raises(RuntimeFailure) as caught:
        model.set_parameters({"shift": WEIGHTS["shift"] * 2, name: value})
    assert caught.value.code == code
    np.testing.assert_array_equal(model.parameters()["shift"], WEIGHTS["shift"])


def test_profile(model):
    batch = feeds()
    with model.profile() as calls:
        model.step(batch, lr=0.1)
    model.step(batch, lr=0.1)
    assert [(c.program, c.kernel) for c in calls] == [
        ("train", name)
        for name in ("sample_dense", "sample_errors", "sample_mean", "guard", "sample_update", "sample_count")
    ]
    assert calls[0].label == "nodes of sample_dense" and calls[0].macs == ROWS * INNER * COLUMNS
    ends = [call.start_ns + call.ns for call in calls]
    assert all(end <= following.start_ns for end, following in zip(ends, calls[1:], strict=False))


@pytest.mark.parametrize(
    "content, code", [(b"", "E0501"), (b"no artifact at all", "E0501"), (None, "E0507"), ("short", "E0502")]
)
def test_files_that_cannot_be_opened(tmp_path, path, content, code):
    bad = tmp_path / "bad.edge"
    if content == "short":
        content = path.read_bytes()[:-100]
    if content is not None:
        bad.write_bytes(content)
    with pytest.raises(RuntimeFailure) as caught:
        load(bad)
    assert caught.value.code == code and caught.value.where == str(bad)


def test_damage_is_located(tmp_path, path):
    data = bytearray(path.read_bytes())
    data[-70] ^= 1
    (tmp_path / "bad.edge").write_bytes(data)
    with pytest.raises(RuntimeFailure, match=r"E0502.*checksum.*section WEIGHTS"):
        load(tmp_path / "bad.edge")


def test_the_best_variant_is_chosen(tmp_path):
    """By the number of required features, not by place in the file; by name on demand."""
    features = {Arch.X86_64: 1 << 0, Arch.AARCH64: 1 << 16}[HOST]  # AVX2; DOTPROD
    write_artifact(
        tmp_path / "a.edge",
        sample(variant(Arch.PORTABLE), variant(HOST, target="plain"), variant(HOST, features, target="fast")),
    )
    try:
        with load(tmp_path / "a.edge", threads=1, target="fast"):
            best = "fast"
    except RuntimeFailure:
        best = "plain"  # an old machine
    with load(tmp_path / "a.edge", threads=1) as model:
        assert model.target == best
    with load(tmp_path / "a.edge", threads=1, target="plain") as model:
        assert model.target == "plain"
    with pytest.raises(RuntimeFailure, match="E0504"):
        load(tmp_path / "a.edge", target="other")


def test_import_is_light():
    """A device has numpy alone."""
    script = (
        "import sys, edgec.runtime;"
        "heavy = {'tvm', 'onnx', 'torch', 'ml_dtypes', 'click', 'rich', 'edgec.graph', 'edgec.compiler'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_statuses_are_those_of_c():
    header = (library_path().parent / "csrc" / "edgec.h").read_text()
    for status in Status:
        assert f"EDGEC_{status.name} = {int(status):#04x}".replace("0X", "0x").upper() in header.upper()
    assert header[header.index("EDGEC_OK") : header.index("} edgec_status;")].count(" = 0x") == len(Status)
