"""edgec bench: the best configuration of each peer, ratios the right way round, and what is not there is said."""

import json
from pathlib import Path

import onnx
import pytest
import torch

from edgec.compiler.train import Train
from edgec.graph.errors import UserError
from edgec.tools import api
from edgec.tools.bench import peers
from edgec.tools.bench.contenders import build_step
from edgec.tools.cli import main
from edgec.tools.testing.made_up_times import make_up_times
from edgec.tools.testing.models import small_cnn_onnx

TIMES = {"edgec": 2.0, "onnxruntime": 4.0, "torch eager": 9.0, "torch channels_last": 8.0, "torch compile": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    onnx.save(small_cnn_onnx(seed=3), folder / "cnn.onnx")
    train = Train(batch=4, update="head", momentum=0.5)
    api.compile(folder / "cnn.onnx", batch=1, train=train, out=folder / "cnn.edge")
    return folder


@pytest.fixture
def asked(monkeypatch) -> dict[str, dict]:
    """Contenders by name as they were asked to run; their times are made up."""
    return make_up_times(monkeypatch, peers, TIMES)


def _edgec(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["bench", *words])
    return caught.value.code, *capsys.readouterr()


def test_a_peer_counts_with_its_best_configuration(folder, asked, capsys) -> None:
    status, out, _ = _edgec(
        capsys, str(folder / "cnn.edge"), "--threads", "3", "--compare", "torch,onnxruntime", "--json"
    )
    assert status == 0
    result = json.loads(out)
    assert result["program"] == "infer" and result["threads"] == 3 and result["median_ms"] == 2.0
    assert result["peers"]["torch"] == {"median_ms": 8.0, "spread_ms": 0.1, "ratio": 0.25, "mode": "channels_last"}
    assert result["peers"]["onnxruntime"] == {"median_ms": 4.0, "spread_ms": 0.1, "ratio": 0.5}
    assert result["left_out"] == {}
    assert {spec["threads"] for spec in asked.values()} == {3}
    assert asked["onnxruntime"]["shapes"] == {"x": (1, 1, 28, 28)}


def test_a_peer_trains_the_same_with_the_same_rule(folder, asked, capsys) -> None:
    status, out, err = _edgec(
        capsys, str(folder / "cnn.edge"), "--program", "train", "--compare", "torch,onnxruntime", "--threads", "1"
    )
    assert status == 0 and "torch channels_last" in out and "0.25" in out
    assert "onnxruntime was not measured: it has no program `train`" in err
    spec = asked["torch eager"]
    assert spec["shapes"] == {"x": (4, 1, 28, 28)} and spec["classes"] == 10 and spec["momentum"] == 0.5
    assert set(spec["trained"]) == {"fc.weight", "fc.bias"}


def test_a_peer_that_is_missing_or_fails_is_said(folder, asked, monkeypatch, capsys) -> None:
    monkeypatch.setitem(TIMES, "onnxruntime", None)
    peer = peers.Peer(("no_such_module",), "pip install that", {"infer": [{"kind": "openvino"}]})
    monkeypatch.setitem(peers.PEERS, "openvino", peer)
    status, _, err = _edgec(capsys, str(folder / "cnn.edge"), "--compare", "onnxruntime,openvino", "--threads", "1")
    assert status == 0
    assert "openvino was not measured: not installed: pip install that" in err
    assert "onnxruntime was not measured: it failed: no compiler" in err
    assert "openvino" not in asked


def test_an_artifact_that_does_not_run_is_an_error(folder, asked, monkeypatch) -> None:
    monkeypatch.setitem(TIMES, "edgec", None)
    with pytest.raises(UserError) as caught:
        peers.bench(folder / "cnn.edge", "infer", 1, (), None, 2)
    assert caught.value.code == "E0608"


def test_usage(folder, capsys) -> None:
    assert _edgec(capsys, str(folder / "cnn.edge"), "--compare", "toaster")[0] == 2
    status, _, err = _edgec(capsys, str(folder / "cnn.edge"), "--compare", "torch", "--model", str(folder / "no.onnx"))
    assert status == 1 and "E0507" in err


def test_it_measures(folder) -> None:
    """For once without made-up times: the artifact beside onnxruntime, each in its own process."""
    result = peers.bench(folder / "cnn.edge", "infer", 1, ("onnxruntime",), folder / "cnn.onnx", 2)
    assert result.median_ms > 0
    assert result.peers["onnxruntime"].ratio == result.median_ms / result.peers["onnxruntime"].median_ms


def test_a_model_of_another_kind_is_no_failure_of_the_peer(folder, asked, monkeypatch, capsys) -> None:
    (folder / "cnn.pt2").write_bytes(b"")
    monkeypatch.setattr("edgec.tools.cli.export.find_source", lambda artifact, model: model)
    words = (
        str(folder / "cnn.edge"),
        "--model",
        str(folder / "cnn.pt2"),
        "--compare",
        "onnxruntime,tflite,torch",
        "--json",
    )
    status, out, said = _edgec(capsys, *words)
    result = json.loads(out)
    assert status == 0 and set(result["peers"]) == {"torch"}
    reason = "files, and the artifact was compiled from cnn.pt2"
    assert result["left_out"] == {"onnxruntime": f"it runs .onnx {reason}", "tflite": f"it runs .tflite {reason}"}


def test_a_torch_program_is_a_contender(tmp_path) -> None:
    """Inference in each mode, and a step that changes what is trained only."""
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 3))
    torch.export.save(torch.export.export(module, (torch.zeros(2, 1, 8, 8),)), tmp_path / "m.pt2")
    spec = {"kind": "torch", "model": str(tmp_path / "m.pt2"), "threads": 1, "shapes": {"x": (2, 1, 8, 8)}}
    for mode in ("eager", "channels_last"):
        assert build_step(spec | {"mode": mode, "program": "infer"})().shape == (2, 3)
    train = spec | {"mode": "eager", "program": "train", "lr": 0.1, "classes": 3, "trained": ["3.weight", "3.bias"]}
    step = build_step(train)
    losses = [step() for _ in range(5)]
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
