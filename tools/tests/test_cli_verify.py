"""edgec verify: several inputs, where the error is, and a training step against torch's."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from edgec.compiler.train import Train
from edgec.runtime import Model
from edgec.tools import api
from edgec.tools.cli import main
from edgec.tools.testing.models import small_cnn_onnx
from edgec.tools.verify import Difference, compare, model_feeds, usual_tolerance, worst_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    for seed in (3, 4):
        onnx.save(small_cnn_onnx(seed), folder / f"cnn{seed}.onnx")
    train = Train(batch=4, momentum=0.9, weight_decay=0.01, nesterov=True)
    api.compile(folder / "cnn3.onnx", batch=2, train=train, out=folder / "cnn.edge")
    return folder


@pytest.fixture
def verify(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(["verify", *words])
        return caught.value.code, *capsys.readouterr()

    return run


def test_several_inputs_and_the_worst_of_them(verify) -> None:
    status, out, _ = verify("cnn3.onnx", "cnn.edge", "--batches", "3", "--seed", "5", "--json")
    row = json.loads(out)["outputs"]["logits"]
    assert status == 0 and len(row["where"]) == 2 and 0 <= row["run"] < 3
    single = [
        json.loads(verify("cnn3.onnx", "cnn.edge", "--seed", str(seed), "--json")[1])["outputs"]["logits"]
        for seed in (5, 6, 7)
    ]
    assert row["relative"] == max(one["relative"] for one in single)


def test_another_model_than_the_artifacts_is_said_so(verify) -> None:
    status, _, said = verify("cnn4.onnx", "cnn.edge")
    assert status == 1 and "error[E0612]" in said
    assert "hint: cnn.edge was compiled from another file, `cnn3.onnx`, than this cnn4.onnx" in said


@pytest.mark.parametrize(
    ("dtypes", "tolerance"),
    [(["float32"], 1e-4), (["float32", "float16"], 1e-2), (["uint16", "float16"], 5e-2), (["int8"], 1e-4)],
)
def test_tolerance_goes_by_the_coarsest_numbers(dtypes: list[str], tolerance: float) -> None:
    """A uint16 of an artifact holds the bits of a bf16."""
    tensors = tuple(SimpleNamespace(data=np.zeros(1, dtype)) for dtype in dtypes)
    assert usual_tolerance(SimpleNamespace(tensors=tensors, variants=())) == tolerance


def test_a_training_step_is_torchs(verify) -> None:
    """Momentum, weight decay and Nesterov's rule; parameters by their names in the model."""
    status, out, _ = verify("cnn3.onnx", "cnn.edge", "--train", "--json")
    record = json.loads(out)
    names = ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias", "fc.weight", "fc.bias")
    assert status == 0 and record["against"] == "torch"
    assert set(record["outputs"]) == {"loss", *(f"{name} change" for name in names)}
    assert all(row["relative"] < 1e-4 and row["largest_magnitude"] > 1e-3 for row in record["outputs"].values())
    assert "conv1.weight change" in verify("cnn3.onnx", "cnn.edge", "--train")[1]


def test_a_wrong_step_is_seen(verify, monkeypatch) -> None:
    step = Model.step
    monkeypatch.setattr(Model, "step", lambda model, feeds, lr: step(model, feeds, lr=0.95 * lr))
    status, _, err = verify("cnn3.onnx", "cnn.edge", "--train")
    assert status == 1 and "E0612" in err and "change" in err


def test_another_models_weights_are_seen(verify) -> None:
    assert verify("cnn4.onnx", "cnn.edge", "--train")[0] == 1
    assert verify("cnn4.onnx", "cnn.edge")[0] == 1


def test_training_is_compared_here(verify) -> None:
    status, _, err = verify("cnn3.onnx", "cnn.edge", "--train", "--device", "qemu")
    assert status == 2 and "--device local" in err


def test_the_place_of_the_largest_error() -> None:
    expected = np.zeros((2, 3))
    actual = expected.copy()
    actual[1, 2], actual[0, 1] = 0.5, 0.25
    (row,) = compare({"y": actual}, {"y": expected})
    assert row == Difference("y", 0.5, 0.0, (1, 2))
    (clean,) = compare({"y": expected}, {"y": expected})
    assert clean.where is None
    assert worst_of([[clean], [row], [clean]]) == [Difference("y", 0.5, 0.0, (1, 2), run=1)]


def test_the_model_takes_what_images_become() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3)
    fed = model_feeds({"x": image, "z": image}, {"images": {"x": {"mean": [0.5], "std": [0.25]}}})
    assert fed["x"].dtype == np.float32 and fed["x"].shape == (1, 3, 2, 4)
    assert fed["x"][0, 2, 1, 3] == np.float32((image[0, 1, 3, 2] / 255 - 0.5) / 0.25)
    assert fed["z"] is image
