"""`edgec.compile`: what it accepts, what it refuses, and that several targets share one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgec
from edgec.graph.errors import InternalError
from edgec.runtime import RuntimeFailure
from edgec.runtime.layout import read_artifact
from edgec.tools import api


def dense(features: int = 6, classes: int = 3) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.normal(size=(features, classes)).astype(np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "dense")],
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", features])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", classes])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_several_targets_share_one_file(tmp_path: Path) -> None:
    out = tmp_path / "m.edge"
    report = edgec.compile(dense(), target="x86,rpi4", batch=2, out=out, train=edgec.Train(batch=4))
    artifact = read_artifact(out)
    assert [v.target for v in artifact.variants] == ["x86", "rpi4"] == list(report.targets)
    assert [t.name for t in artifact.tensors if t.name == "w"] == ["w"]
    assert report.artifact_bytes == out.stat().st_size
    assert set(report.programs) == {"infer", "train", "eval"}
    with edgec.load(out) as model:
        x = np.random.default_rng(1).normal(size=(2, 6)).astype(np.float32)
        np.testing.assert_allclose(model.run({"x": x})["y"], x @ model.parameters()["w"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [({"model": object()}, "E0101"), ({"model": "m.onnx", "example_inputs": (1,)}, "E0109")],
)
def test_what_is_no_model_is_refused(arguments: dict, code: str, tmp_path: Path) -> None:
    with pytest.raises(edgec.UserError) as caught:
        edgec.compile(**arguments, out=tmp_path / "m.edge")
    assert caught.value.code == code and caught.value.hint


def test_a_missing_folder_is_said_first(tmp_path: Path) -> None:
    with pytest.raises(edgec.UserError) as caught:
        edgec.compile("no such model", out=tmp_path / "none" / "m.edge")
    assert caught.value.code == "E0505"


def test_what_the_runtime_would_refuse_is_never_left_behind(tmp_path, monkeypatch):
    def refuse(path):
        assert path.stat().st_size > 1000
        raise RuntimeFailure("E0502", "a record is wrong")

    out = tmp_path / "cnn.edge"
    out.write_text("what stood there")
    monkeypatch.setattr(api, "check_artifact", refuse)
    with pytest.raises(InternalError, match="the runtime refuses what was compiled: a record is wrong"):
        edgec.compile(dense(), batch=1, out=out)
    assert out.read_text() == "what stood there" and list(tmp_path.iterdir()) == [out]


def test_weights_that_are_not_finite_are_warned_of(tmp_path):
    model = dense()
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[2, 1] = np.nan
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    with pytest.warns(UserWarning, match="parameter `w` holds values that are not finite"):
        edgec.compile(model, batch=1, out=tmp_path / "m.edge")
