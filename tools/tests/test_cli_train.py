"""Training from the command line, on a few pictures of clothes: train, resume, export, profile."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest

import edgec
from edgec.runtime import CallProfile
from edgec.tools import api
from edgec.tools.cli import main
from edgec.tools.cli.profile import CallTime, summarise
from edgec.tools.testing.data import fashion_mnist
from edgec.tools.testing.models import small_cnn_onnx

BATCH = 8
SAMPLES = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    onnx.save(small_cnn_onnx(), folder / "cnn.onnx")
    train = edgec.Train(batch=BATCH, momentum=0.9)
    api.build(api.Request(folder / "cnn.onnx", api.parse_targets("x86"), batch=1, train=train), folder / "cnn.edge")
    images, labels = fashion_mnist("train")
    np.savez(folder / "data.npz", x=images[:SAMPLES], labels=labels[:SAMPLES])
    return folder


@pytest.fixture
def edgec_command(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(list(words))
        return caught.value.code, *capsys.readouterr()

    return run


_TRAIN = ("train", "cnn.edge", "--data", "data.npz", "--lr", "0.05", "--threads", "1", "--json")


def test_training_learns_and_evaluates_after_every_epoch(edgec_command):
    status, out, err = edgec_command(*_TRAIN, "--epochs", "6", "--eval-data", "data.npz", "--schedule", "cosine")
    done = json.loads(out)
    assert status == 0 and len(done["losses"]) == 6 * SAMPLES // BATCH and done["first_step"] == 0
    accuracies = [evaluation["accuracy"] for evaluation in done["evaluations"]]
    assert len(accuracies) == 6 and accuracies[-1] > 0.5 and accuracies[-1] > accuracies[0]
    assert "after epoch 6" in err and "\r" not in err


def test_a_resumed_run_is_the_run_that_was_not_interrupted(edgec_command, folder):
    whole = json.loads(edgec_command(*_TRAIN, "--epochs", "2")[1])["losses"]
    words = (*_TRAIN, "--checkpoint", "resumed.edgeckpt", "--resume")
    first = json.loads(edgec_command(*words, "--epochs", "1")[1])
    second = json.loads(edgec_command(*words, "--epochs", "2")[1])
    assert second["first_step"] == SAMPLES // BATCH
    assert first["losses"] + second["losses"] == whole
    status, out, _ = edgec_command(*(word for word in words if word != "--json"), "--epochs", "2")
    assert status == 0 and "nothing to do" in out


def test_exported_weights_are_those_that_were_trained(edgec_command, folder):
    assert edgec_command(*_TRAIN, "--epochs", "1", "--checkpoint", "tuned.edgeckpt")[0] == 0
    status, out, _ = edgec_command("export", "cnn.edge", "--checkpoint", "tuned.edgeckpt", "-o", "tuned.onnx")
    assert status == 0 and "6 trained tensors" in out
    x = np.load(folder / "data.npz")["x"][:1]
    model = edgec.load(folder / "cnn.edge", threads=1)
    before = model.run({"x": x})["logits"]
    model.load_checkpoint(folder / "tuned.edgeckpt")
    after = model.run({"x": x})["logits"]
    exported = onnxruntime.InferenceSession(folder / "tuned.onnx").run(None, {"x": x})[0]
    np.testing.assert_allclose(exported, after, atol=1e-5 * np.abs(after).max())
    assert np.abs(after - before).max() > 0.1 * np.abs(before).max()


def test_export_wants_the_very_model(edgec_command, folder):
    assert edgec_command(*_TRAIN, "--epochs", "1", "--checkpoint", "c.edgeckpt")[0] == 0
    onnx.save(small_cnn_onnx(seed=9), folder / "other.onnx")
    words = ("export", "cnn.edge", "--checkpoint", "c.edgeckpt", "-o", "never.onnx")
    for model, text in [("other.onnx", "is not the model"), ("none.onnx", "--model MODEL says where")]:
        status, _, err = edgec_command(*words, "--model", model)
        assert status == 1 and "error[E0507]" in err and text in err
    assert not (folder / "never.onnx").exists()


@pytest.mark.parametrize(
    ("change", "options", "status", "text"),
    [
        ({"labels": np.full(SAMPLES, 10)}, [], 1, "error[E0604]"),
        ({"labels": np.zeros(3, np.int64)}, [], 1, "error[E0607]"),
        ({"extra": np.zeros(SAMPLES, np.float32)}, [], 1, "error[E060"),
        ({}, ["--lr", "1e30"], 1, "error[E0605]"),
        ({}, ["--resume"], 2, "add --checkpoint"),
        ({}, ["--epochs", "0"], 2, "--epochs"),
    ],
)
def test_what_is_wrong_with_training_is_told(edgec_command, folder, change, options, status, text):
    arrays = dict(np.load(folder / "data.npz")) | change
    np.savez(folder / "changed.npz", **arrays)
    words = ("train", "cnn.edge", "--data", "changed.npz", "--epochs", "1", "--lr", "0.01", *options)
    code, _, err = edgec_command(*words)
    assert code == status and text in err


def test_profile_times_every_call_and_writes_a_trace(edgec_command, folder):
    words = ("profile", "cnn.edge", "--program", "train", "--runs", "3", "--threads", "1")
    status, out, _ = edgec_command(*words, "--trace", "trace.json", "--json")
    calls = json.loads(out)["calls"]
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    assert status == 0 and len(calls) == len(events)
    assert {event["ph"] for event in events} == {"X"} and events[0]["args"]["kernel"] == calls[0]["kernel"]
    starts = [event["ts"] for event in events]
    assert starts == sorted(starts)
    status, out, _ = edgec_command(*words)
    assert status == 0 and "conv2" in out and f"in {len(calls)} calls" in out


def test_a_summary_has_medians_call_by_call():
    runs = [
        [CallProfile("infer", "a", "x", 0, ns, 5), CallProfile("infer", "b", "y", 9, 2 * ns, 0)] for ns in (30, 10, 20)
    ]
    assert summarise(runs) == [CallTime("a", "x", 5, 20), CallTime("b", "y", 0, 40)]
