"""`edgec-run` by itself: results against the binding, to the bit, here and on aarch64; every error with its code."""

import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from library_sources import CSRC, SOURCES, STRICT
from sample_artifact import COLUMNS, KERNELS, ROWS, UPDATE, feeds, programs, sample, variant

from edgec.runtime import load
from edgec.runtime.abi import Arch
from edgec.runtime.binding import Checkpoint
from edgec.runtime.layout import write_artifact
from edgec.runtime.library import _CODES, Status
from edgec.runtime.tensorfile import read_tensors, write_tensors

STEPS = 5
LR = np.float32(0.05)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    path = tmp_path_factory.mktemp("artifact") / "sample.edge"
    write_artifact(path, sample(variant(Arch.X86_64), variant(Arch.AARCH64)))
    return path


def build(folder, compiler, *flags):
    path = folder / compiler
    subprocess.run([compiler, *STRICT, "-pthread", *flags, CSRC / "edgec_run.c", *SOURCES, "-o", path], check=True)
    return path


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """With sanitizers, so that every test here is theirs too."""
    flags = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    return build(tmp_path_factory.mktemp("native"), "gcc", *flags)


class Run:
    """Files in a folder, and `edgec-run` on them."""

    def __init__(self, folder, artifact, *command):
        self.folder, self.artifact, self.command = folder, artifact, command
        self.inputs, self.outputs = folder / "in.tensors", folder / "out.tensors"

    def start(self, name, *options):
        words = [*self.command, self.artifact, "--program", name, "--inputs", self.inputs, "--outputs", self.outputs]
        # What main allocates lives as long as the process.
        environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}
        return subprocess.run([*words, *options], capture_output=True, text=True, env=environment, timeout=100)

    def __call__(self, name, arrays, *options):
        write_tensors(self.inputs, arrays)
        done = self.start(name, *options)
        assert done.returncode == 0, done.stderr
        assert not done.stderr and not list(self.folder.glob("*.tmp"))
        return read_tensors(self.outputs)

    def fails(self, name, arrays, *options):
        """The code and the message; nothing is written."""
        if arrays is not None:
            write_tensors(self.inputs, arrays)
        done = self.start(name, *options)
        match = re.fullmatch(r"error\[(E\d{4})\]: (.*)\n", done.stderr)
        assert done.returncode == 1 and match, done.stderr
        assert not done.stdout and not self.outputs.exists() and not list(self.folder.glob("*.tmp"))
        return match[1], match[2]


@pytest.fixture
def run(tmp_path, artifact, program):
    return Run(tmp_path, artifact, program)


def batches(count):
    return [feeds(seed) for seed in range(count)]


def whole(count):
    """All steps' shares of every array, one after another."""
    return {name: np.concatenate([batch[name] for batch in batches(count)]) for name in ("x", "labels")}


@pytest.fixture
def model(artifact):
    with load(artifact, threads=1) as model:
        yield model


def test_inference(run, model):
    x = feeds()["x"]
    np.testing.assert_array_equal(run("infer", {"x": x})["y"], model.run({"x": x})["y"])


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_outputs_are_those_of_the_last_step(run, model, threads):
    arrays = whole(STEPS)
    out = run("eval", arrays, "--steps", str(STEPS), "--threads", str(threads))
    expected = [model.eval_step(batch) for batch in batches(STEPS)]
    assert list(out) == ["y", "losses"]
    np.testing.assert_array_equal(out["y"], expected[-1][1]["y"])
    np.testing.assert_array_equal(out["losses"], np.float32([loss for loss, _ in expected]))


def test_training_with_shares_and_repeated_arrays(run, model):
    """x and the rate differ from step to step, labels do not."""
    labels, rates = feeds()["labels"], np.linspace(0.1, 0.01, STEPS, dtype=np.float32)
    arrays = {"x": whole(STEPS)["x"], "labels": labels, "lr": rates}
    out = run("train", arrays, "--steps", str(STEPS))
    steps = zip(batches(STEPS), rates, strict=True)
    expected = [model.step({"x": batch["x"], "labels": labels}, lr=float(rate)) for batch, rate in steps]
    assert list(out) == ["losses"]
    np.testing.assert_array_equal(out["losses"], np.float32(expected))


def test_a_program_without_inputs(run, model):
    np.testing.assert_array_equal(run("wide", {}, "--steps", "2")["wide"], model.run({}, program="wide")["wide"])


def test_checkpoints_count_steps_and_resume(run, model):
    """Two and three steps with a checkpoint between are the five of one run."""
    first, second = run.folder / "first", run.folder / "second"
    model.save_checkpoint(first, step=100, seed=42)
    arrays = {**feeds(), "lr": LR}
    losses = run("train", arrays, "--steps", "2", "--load-checkpoint", first, "--save-checkpoint", second)["losses"]
    again = run("train", arrays, "--steps", "3", "--load-checkpoint", second, "--save-checkpoint", second)["losses"]
    expected = [model.step(feeds(), lr=0.05) for _ in range(5)]
    np.testing.assert_array_equal(np.concatenate([losses, again]), np.float32(expected))
    model.save_checkpoint(first, step=105, seed=42)
    assert second.read_bytes() == first.read_bytes()


def test_only_what_trains_counts_steps(run, model):
    run("infer", {"x": feeds()["x"]}, "--steps", "3", "--save-checkpoint", run.folder / "c")
    assert Checkpoint.of(run.folder / "c").step == 0


def test_profile(run):
    run("train", {**feeds(), "lr": LR}, "--steps", "4", "--profile", run.folder / "p.json")
    profile = json.loads((run.folder / "p.json").read_text())
    train = next(program for program in programs() if program.name == "train")
    assert (profile["program"], profile["steps"]) == ("train", 4)
    names = [list(KERNELS)[call.kernel] if call.kernel >= 0 else "guard" for call in train.calls]
    assert [call["kernel"] for call in profile["calls"]] == names
    for call, planned in zip(profile["calls"], train.calls, strict=True):
        assert (call["label"], call["macs"], call["tasks"]) == (planned.label, planned.macs, planned.tasks)
        least, median = call["nanoseconds"]
        assert 0 <= least <= median < 10**10
    assert len(UPDATE) + 3 == len(names)


# ---- Errors. ----


def test_arrays_that_do_not_fit(run):
    good = {**feeds(), "lr": LR}
    cases = [
        ({}, "E0601", "`x` is missing"),
        ({"x": good["x"], "lr": LR}, "E0601", "`labels` is missing"),
        ({**good, "z": LR}, "E0601", "takes no `z`"),
        ({**good, "loss": LR}, "E0601", "takes no `loss`"),
        ({**good, "x": good["x"].astype(np.float64)}, "E0602", "`x` is f64, not f32"),
        ({**good, "x": good["x"][:63]}, "E0603", r"\[63, 8\], not \[64, 8\] .* 3 steps"),
        ({**good, "x": np.concatenate([good["x"]] * 2)}, "E0603", r"\[128, 8\]"),
        ({**good, "x": good["x"].reshape(8, 64)}, "E0603", r"\[8, 64\]"),
        ({**good, "x": good["x"].reshape(-1)}, "E0603", r"\[512\]"),
        ({**good, "lr": np.zeros(2, np.float32)}, "E0603", r"`lr` has shape \[2\], not \[\]"),
        ({**good, "lr": np.zeros((3, 1), np.float32)}, "E0603", r"\[3, 1\]"),
    ]
    for arrays, code, message in cases:
        got = run.fails("train", arrays, "--steps", "3")
        assert got[0] == code and re.search(message, got[1]), got


def test_failures_of_a_step(run):
    saved = run.folder / "c"
    arrays = {**whole(3), "lr": LR}
    arrays["labels"][ROWS + 9] = COLUMNS
    code, message = run.fails("train", arrays, "--steps", "3", "--save-checkpoint", saved)
    assert (code, message) == ("E0604", "step 1: element 9 of `labels` is 6, outside 0 to 5")
    arrays = {**feeds(), "lr": np.array([0.1, np.inf, 0.1], np.float32)}
    code, message = run.fails("train", arrays, "--steps", "3", "--save-checkpoint", saved)
    assert code == "E0605" and message.startswith("step 2: ")
    assert not saved.exists()


def test_files_that_are_not_what_they_should_be(run, model):
    good = {"x": feeds()["x"]}
    damaged = run.folder / "damaged"
    model.save_checkpoint(damaged)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    artifact = run.artifact
    assert run.fails("none", good)[0] == "E0606"
    assert run.fails("infer", good, "--load-checkpoint", damaged)[0] == "E0506"
    assert run.fails("infer", good, "--load-checkpoint", run.folder / "none")[0] == "E0507"
    run.artifact = damaged
    assert run.fails("infer", good)[0] == "E0501"
    run.artifact = run.folder / "none"
    assert run.fails("infer", good)[0] == "E0507"
    run.artifact = run.folder / "cut"
    run.artifact.write_bytes(artifact.read_bytes()[:-1])
    assert run.fails("infer", good)[0] == "E0502"
    run.artifact = artifact
    for content in (b"", b"PK\3\4", damaged.read_bytes()):
        run.inputs.write_bytes(content)
        assert run.fails("infer", None)[0] == "E0507"
    run.inputs.unlink()
    assert run.fails("infer", None)[0] == "E0507"


def test_places_that_cannot_be_written(run):
    good = {"x": feeds()["x"]}
    assert run.fails("infer", good, "--outputs", run.folder / "no/such")[0] == "E0505"
    write_tensors(run.inputs, good)
    for option in ("--profile", "--save-checkpoint"):
        done = run.start("infer", option, run.folder / "no/such")
        assert done.returncode == 1 and done.stderr.startswith("error[E0505]: ")


@pytest.mark.parametrize(
    "words",
    [[], ["--steps"], ["--steps", "0"], ["--steps", "-1"], ["--steps", "2x"], ["--threads", "many"], ["--what", "1"]],
)
def test_wrong_calls(run, words):
    done = run.start("infer", *words) if words else subprocess.run([*run.command], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("usage: edgec-run ARTIFACT")


def test_codes_are_those_of_the_binding():
    text = (CSRC / "edgec_run.c").read_text()
    table = text[text.index("static const char *code_of") : text.index("default:")]
    codes, waiting = {}, []
    for status, code in re.findall(r"case EDGEC_(\w+):|return \"(E\d{4})\";", table):
        if status:
            waiting.append(Status[status])
        else:
            codes |= dict.fromkeys(waiting, code)
            waiting = []
    assert codes == _CODES


# ---- The other machine. ----


@pytest.mark.skipif(
    not shutil.which("qemu-aarch64-static") or not shutil.which("aarch64-linux-gnu-gcc"),
    reason="needs qemu-user-static and gcc-aarch64-linux-gnu",
)
def test_aarch64_gives_the_same_bits(artifact, model, tmp_path):
    """Losses and checkpoints of a static binary under emulation."""
    static = build(tmp_path, "aarch64-linux-gnu-gcc", "-O2", "-static")
    (tmp_path / "files").mkdir()
    run = Run(tmp_path / "files", artifact, "qemu-aarch64-static", "-cpu", "cortex-a72", static)
    saved = run.folder / "c"
    options = ["--steps", str(STEPS), "--threads", "2", "--save-checkpoint", saved, "--profile", run.folder / "p"]
    out = run("train", {**whole(STEPS), "lr": LR}, *options)
    expected = [model.step(batch, lr=0.05) for batch in batches(STEPS)]
    np.testing.assert_array_equal(out["losses"], np.float32(expected))
    model.save_checkpoint(tmp_path / "here", step=STEPS)
    assert saved.read_bytes() == (tmp_path / "here").read_bytes()
    assert len(json.loads((run.folder / "p").read_text())["calls"]) == 6
