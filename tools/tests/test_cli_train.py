"""Training from the command line, on a few pictures of clothes: train, resume, export, profile."""

import io
import json
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import onnxruntime
import pytest

import edgec
from edgec.runtime import CallProfile, Checkpoint
from edgec.runtime.fit import Progress
from edgec.tools import api
from edgec.tools.cli import main
from edgec.tools.cli.progress import format_seconds, training_display
from edgec.tools.profile import CallTime, KernelTime, by_kernel, from_device, summarise
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


_COMMAND = "from edgec.tools.cli import main; main()"
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


def test_the_best_checkpoint_is_the_state_that_evaluated_best(edgec_command, folder):
    words = (*_TRAIN, "--epochs", "3", "--eval-data", "data.npz", "--best-checkpoint", "best.edgeckpt")
    done = json.loads(edgec_command(*words)[1])
    accuracies = [evaluation["accuracy"] for evaluation in done["evaluations"]]
    assert done["best"]["accuracy"] == max(accuracies)
    best = max(range(3), key=lambda epoch: (accuracies[epoch], -done["evaluations"][epoch]["loss"]))
    assert Checkpoint.of(folder / "best.edgeckpt").step == (best + 1) * SAMPLES // BATCH
    assert edgec_command(*_TRAIN, "--epochs", "1", "--best-checkpoint", "never.edgeckpt")[0] == 2


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
    events = [event for event in events if event.get("cat") == "kernel"]
    assert status == 0 and 3 * len(calls) == len(events)
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


def test_kernels_are_summed_over_their_calls_and_sorted():
    profile = {
        "calls": [
            {"kernel": "a", "label": "x", "macs": 1000, "tasks": 1, "nanoseconds": [1, 10]},
            {"kernel": "b", "label": "y", "macs": 0, "tasks": 1, "nanoseconds": [1, 50]},
            {"kernel": "a", "label": "z", "macs": 500, "tasks": 1, "nanoseconds": [1, 20]},
        ]
    }
    slow, fast = by_kernel(from_device(profile))
    assert (slow.kernel, slow.calls, slow.nanoseconds, slow.gflops) == ("b", 1, 50, 0.0)
    assert fast == KernelTime("a", ("x", "z"), 2, 1500, 30) and fast.gflops == 100.0


def test_profile_shows_kernels_beside_the_peak(edgec_command):
    words = ("profile", "cnn.edge", "--runs", "2", "--threads", "1")
    status, out, _ = edgec_command(*words, "--json")
    record = json.loads(out)
    kernels = record["kernels"]
    assert status == 0 and record["device"] == "this machine" and record["peak_gflops"] > 0
    assert sum(row["calls"] for row in kernels) == len(record["calls"])
    assert sum(row["macs"] for row in kernels) == 9 * 32 * 784 + 9 * 32 * 64 * 196 + 3136 * 10
    status, out, _ = edgec_command(*words)
    assert status == 0 and "of peak" in out and "%" in out and "GFLOP/s" in out
    assert edgec_command("profile", "cnn.edge", "--device", "qemu", "--trace", "t.json")[0] == 2


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("with_rich", [True, False])
def test_progress_on_a_terminal_with_and_without_rich(monkeypatch, with_rich):
    if not with_rich:
        monkeypatch.setitem(sys.modules, "rich.progress", None)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with training_display() as display:
        display.on_progress(Progress(1, 2, 0, loss=0.5, lr=0.01, seconds_left=70.0))
        display.say("after epoch 1: fine")
        display.on_progress(Progress(2, 2, 1, loss=0.25, lr=0.001, seconds_left=0.0))
    text = terminal.getvalue()
    assert "after epoch 1: fine\n" in text and "loss 0.2500, rate 0.001, 0 s left" in text
    assert ("1:10 left" in text) or with_rich  # rich draws only so often


def test_durations_read_well():
    assert [format_seconds(s) for s in (0.4, 59.4, 59.6, 3599, 3600)] == ["0 s", "59 s", "1:00", "59:59", "1:00:00"]


def test_a_signal_stops_training_after_its_step_and_resuming_gives_the_whole_run(edgec_command, folder):
    """A process of its own: the signal comes while it trains."""
    checkpoint = folder / "stopped.edgeckpt"
    options = ["--data", "data.npz", "--lr", "0.05", "--threads", "1", "--json", "--checkpoint", checkpoint]
    words = [sys.executable, "-c", _COMMAND, "train", "cnn.edge", *options, "--epochs", "100000"]
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    stopped = json.loads(out)
    assert process.returncode == 130 and stopped["stopped"], err
    steps = len(stopped["losses"])
    assert Checkpoint.of(checkpoint).step == steps and "--resume goes on" in err and "Traceback" not in err
    more = ("--epochs", "100000", "--max-steps", str(steps + 2), "--resume", "--checkpoint", str(checkpoint))
    second = json.loads(edgec_command(*_TRAIN, *more)[1])
    whole = json.loads(edgec_command(*_TRAIN, *more[:4])[1])
    assert second["first_step"] == steps and stopped["losses"] + second["losses"] == whole["losses"]


def test_a_full_disk_leaves_the_checkpoint_that_was_there(edgec_command, folder):
    """A limit on the size of files stands for the disk: the first bytes of a checkpoint can be written."""
    checkpoint = folder / "full.edgeckpt"
    words = ("--epochs", "2", "--checkpoint", str(checkpoint), "--resume")
    assert edgec_command(*_TRAIN, *words, "--max-steps", "3")[0] == 0
    before = checkpoint.read_bytes()
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) // 2},) * 2); {_COMMAND}"
    done = subprocess.run([sys.executable, "-c", limited, *_TRAIN, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 1 and "error[E0505]" in done.stderr and "full.edgeckpt" in done.stderr
    assert checkpoint.read_bytes() == before and not list(folder.glob("full.edgeckpt?*"))
    resumed = json.loads(edgec_command(*_TRAIN, *words)[1])
    assert resumed["first_step"] == 3


def test_rates_follow_the_schedule(edgec_command):
    """Rates of 0 leave the second half of the steps without effect: the loss of a batch seen again is the same."""
    words = (*_TRAIN, "--schedule", "step", "--step-every", "8", "--step-factor", "0", "--epochs", "3")
    losses = json.loads(edgec_command(*words)[1])["losses"]
    assert sum(losses[8:16]) == pytest.approx(sum(losses[16:]), rel=1e-5)
    assert edgec_command(*_TRAIN, "--epochs", "1", "--schedule", "step")[0] == 2
    assert edgec_command(*_TRAIN, "--epochs", "1", "--step-every", "3")[0] == 2
    warm = json.loads(edgec_command(*_TRAIN, "--epochs", "1", "--warmup", "1000000", "--max-steps", "3")[1])["losses"]
    cold = json.loads(edgec_command(*_TRAIN, "--epochs", "1", "--max-steps", "3")[1])["losses"]
    assert len(warm) == 3 and warm[0] == cold[0] and warm[2] > cold[2]
