"""edgec verify --train: every loss and optimizer against torch's, and mistakes in each are seen."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from edgec.compiler.parameter_groups import ParameterGroup
from edgec.compiler.sparse.scheme import Lora, Scheme, WeightRule
from edgec.compiler.train import Train
from edgec.runtime import Model
from edgec.tools import api
from edgec.tools.cli import main
from edgec.tools.testing.models import normed_classifier_onnx

torch.set_num_threads(1)
BATCH = 4


def verified(model: Path, artifact: Path, capsys: pytest.CaptureFixture) -> tuple[int, dict]:
    """Exit status and the rows, as parts of what is allowed."""
    with pytest.raises(SystemExit) as caught:
        main(["verify", str(model), str(artifact), "--train", "--json"])
    out, err = capsys.readouterr()
    assert caught.value.code in (0, 1), err
    assert out, err
    return caught.value.code, json.loads(out)["outputs"]


CASES = {
    "sgd": ("Identity", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "adam": ("Softmax", {"optimizer": "adam", "weight_decay": 0.1, "label_smoothing": 0.1}),
    "adamw": (
        "Identity",
        {
            "optimizer": "adamw",
            "decay": "weights",
            "clip_norm": 0.1,
            "groups": (ParameterGroup("fc.*", 0.5, 0.3),),
            "class_weights": (0.5, 1.0, 2.0, 1.5),
            "ignore_index": -1,
        },
    ),
    "lion": ("Identity", {"optimizer": "lion", "accumulate": 2, "clip_value": 0.05, "targets": "probabilities"}),
    "bce": ("Sigmoid", {"loss": "bce_logits", "batch_norm": "train"}),
    "huber": ("Identity", {"loss": "huber", "huber_delta": 0.5, "guard": "grads"}),
    "several": ("Identity", {"loss": "sum_mse:y,p"}),
}


QUICK = ("adamw", "several")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in CASES]
)
def test_a_step_is_torchs(name: str, tmp_path: Path, capsys, monkeypatch) -> None:
    last, rule = CASES[name]
    onnx.save(normed_classifier_onnx(last), tmp_path / "m.onnx")
    api.compile(tmp_path / "m.onnx", batch=1, train=Train(batch=BATCH, **rule), out=tmp_path / "m.edge")
    status, rows = verified(tmp_path / "m.onnx", tmp_path / "m.edge", capsys)
    assert status == 0
    names = ("conv.weight", "gamma", "beta", "fc.weight", "fc.bias")
    assert {f"{name} change" for name in names} <= rows.keys()
    assert all(row["relative"] < 1e-4 for row in rows.values()), rows
    assert all(row["largest_magnitude"] > 1e-5 for row in rows.values()), rows
    if rule.get("batch_norm") == "train":
        assert {"mean change", "variance change"} <= rows.keys()

    step = Model.step
    monkeypatch.setattr(Model, "step", lambda model, feeds, lr: step(model, feeds, lr=0.9 * lr))
    assert verified(tmp_path / "m.onnx", tmp_path / "m.edge", capsys)[0] == 1


PIECES = {"conv.weight": 0.5, "fc.weight": 0.5}
SPARSE = {
    "sgd on slices": {"momentum": 0.9, "weight_decay": 0.1},
    "adamw on slices": {"optimizer": "adamw", "weight_decay": 0.1},
    "adam on slices": {"optimizer": "adam", "weight_decay": 0.1, "clip_norm": 0.1},
    "lion on slices": {"optimizer": "lion", "weight_decay": 0.1},
}


def same_step(source: Path, capsys, monkeypatch) -> dict:
    """The rows of a step that is torch's, and would not be at another rate."""
    artifact = source.with_suffix(".edge")
    status, rows = verified(source, artifact, capsys)
    assert status == 0 and all(row["relative"] < 1e-4 for row in rows.values()), rows
    step = Model.step
    with monkeypatch.context() as patch:
        patch.setattr(Model, "step", lambda model, feeds, lr: step(model, feeds, lr=0.9 * lr))
        assert verified(source, artifact, capsys)[0] == 1
    return rows


@pytest.mark.parametrize("rule", [pytest.param(rule, id=name) for name, rule in SPARSE.items()])
def test_a_step_on_slices_is_torchs(rule: dict, tmp_path: Path, capsys, monkeypatch) -> None:
    """The largest channels, which lie in front: in the order of the source model they are anywhere."""
    rules = tuple(WeightRule(name, ratio) for name, ratio in PIECES.items())
    scheme = Scheme(base="none", channels="largest", weights=rules)
    onnx.save(normed_classifier_onnx("Identity"), tmp_path / "m.onnx")
    train = Train(batch=BATCH, update=scheme, **rule)
    api.compile(tmp_path / "m.onnx", batch=1, train=train, out=tmp_path / "m.edge")
    rows = same_step(tmp_path / "m.onnx", capsys, monkeypatch)
    assert {f"{name} change" for name in PIECES} <= rows.keys()
    assert all(row["largest_magnitude"] > 1e-5 for row in rows.values()), rows


@pytest.mark.parametrize("rule", [{"clip_norm": 0.1}, {"optimizer": "adamw", "decay": "weights"}], ids=["sgd", "adamw"])
def test_a_step_of_adapters_is_torchs(rule: dict, tmp_path: Path, capsys, monkeypatch) -> None:
    lora = Lora(rank=2, alpha=3.0, layers=("fc.weight",))
    onnx.save(normed_classifier_onnx("Identity"), tmp_path / "m.onnx")
    train = Train(batch=BATCH, update=Scheme(base="none", biases="all", lora=lora), **rule)
    api.compile(tmp_path / "m.onnx", batch=1, train=train, out=tmp_path / "m.edge")
    rows = same_step(tmp_path / "m.onnx", capsys, monkeypatch)
    assert rows["fc.weight/lora_B change"]["largest_magnitude"] > 1e-5
    assert "fc.weight/lora_A change" in rows and "fc.weight change" not in rows


@pytest.mark.parametrize("update", ["full", "head"])
def test_a_step_of_a_new_head_is_torchs(update: str, tmp_path: Path, capsys, monkeypatch) -> None:
    onnx.save(normed_classifier_onnx("Softmax"), tmp_path / "m.onnx")
    train = Train(batch=BATCH, update=update, optimizer="adamw", decay="weights")
    api.compile(tmp_path / "m.onnx", batch=1, train=train, new_head=7, out=tmp_path / "m.edge")
    rows = same_step(tmp_path / "m.onnx", capsys, monkeypatch)
    assert {"fc.weight.head change", "fc.bias.head change"} <= rows.keys()
    assert ("conv.weight change" in rows) == (update == "full")


@pytest.mark.long
def test_the_step_of_a_pt2_file(tmp_path: Path, capsys) -> None:
    """A transformer, exported with a batch of two and trained with four."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), nn.Flatten(), nn.Linear(24, 3)
    ).eval()
    torch.export.save(torch.export.export(module, (torch.randn(2, 3, 8),)), tmp_path / "m.pt2")
    train = Train(batch=BATCH, optimizer="adamw", decay="weights", dropout="off")
    api.compile(tmp_path / "m.pt2", train=train, out=tmp_path / "m.edge")
    status, rows = verified(tmp_path / "m.pt2", tmp_path / "m.edge", capsys)
    assert status == 0 and "0.linear1.weight gradient" in rows
    assert all(row["relative"] < 1e-4 for row in rows.values()), rows
