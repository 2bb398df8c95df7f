"""What users read when something is wrong, word for word: `error_snapshots.txt`; EDGEC_UPDATE=1 writes it anew.

Every case goes through the real command line; it exits with status 1, has a code, a place and a hint, and no traceback.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from bad_models import write_bad_models
from onnx import TensorProto, helper, numpy_helper

import edgec
from edgec.graph.errors import CODES
from edgec.runtime import RuntimeFailure, tables
from edgec.tools import api
from edgec.tools.cli import main

SNAPSHOTS = Path(__file__).with_name("error_snapshots.txt")
COMMAND = "from edgec.tools.cli import main; main()"
BATCH, FEATURES, CLASSES = 4, 6, 3


def tiny(ops: tuple[str, ...] = ("Relu",), domain: str = "", width: int = 8) -> onnx.ModelProto:
    """x f32[N,6] -> logits f32[N,3]: dense layers with the given activations between them."""
    rng = np.random.default_rng(0)
    nodes, weights, value, size = [], [], "x", FEATURES
    for number, op in enumerate((*ops, None)):
        out = CLASSES if op is None else width
        array = rng.standard_normal((size, out)).astype(np.float32)
        weights.append(numpy_helper.from_array(array, f"dense{number}.weight"))
        result = "logits" if op is None else f"dense{number}.out"
        nodes.append(helper.make_node("MatMul", [value, f"dense{number}.weight"], [result], f"dense{number}"))
        value, size = result, out
        if op is not None:
            nodes.append(helper.make_node(op, [value], [f"act{number}.out"], f"act{number}", domain=domain))
            value = f"act{number}.out"
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", FEATURES])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        weights,
    )
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def data(**changes: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4 * BATCH, FEATURES)).astype(np.float32)
    return {"x": x, "labels": np.arange(4 * BATCH) % CLASSES} | changes


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Models, artifacts and data, good ones and bad ones; commands run in it."""
    folder = tmp_path_factory.mktemp("errors")
    (folder / "notes.onnx").write_text("Remember the milk.\n")
    onnx.save(tiny(), folder / "tiny.onnx")
    whole = (folder / "tiny.onnx").read_bytes()
    (folder / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    onnx.save(tiny(("Relux", "Swoosh"), "acme"), folder / "odd.onnx")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEC_CACHE", str(folder / "cache"))
        for name, target, train in [
            ("tiny", "x86", edgec.Train(batch=BATCH)),
            ("infer", "x86", None),
            ("arm", "rpi4", None),
        ]:
            request = api.Request(folder / "tiny.onnx", api.parse_targets(target), batch=BATCH, train=train)
            api.build(request, folder / f"{name}.edge")
        onnx.save(tiny(width=16), folder / "wide.onnx")
        request = api.Request(
            folder / "wide.onnx", api.parse_targets("x86"), batch=BATCH, train=edgec.Train(batch=BATCH)
        )
        api.build(request, folder / "wide.edge")
    artifact = (folder / "tiny.edge").read_bytes()
    (folder / "cut.edge").write_bytes(artifact[: len(artifact) // 2])
    (folder / "flipped.edge").write_bytes(artifact[:-200] + bytes([artifact[-200] ^ 1]) + artifact[-199:])
    (folder / "newer.edge").write_bytes(_newer(artifact))
    with edgec.load(folder / "wide.edge", threads=1) as model:
        model.save_checkpoint(folder / "wide.edgeckpt")
    x = np.zeros((BATCH, FEATURES), np.float32)
    for name, arrays in {
        "good": {"x": x},
        "name": {"y": x},
        "dtype": {"x": x.astype(np.float64)},
        "shape": {"x": x[:2]},
        "nan": {"x": x + np.nan},
        "pickled": {"x": np.array([None])},
        "data": data(),
        "data-label": data(labels=np.full(4 * BATCH, CLASSES)),
        "data-name": {"images": data()["x"], "labels": data()["labels"]},
        "data-none": {name: array[:0] for name, array in data().items()},
        "other": data(x=np.zeros((4 * BATCH, FEATURES + 1), np.float32)),
        "one": {name: array[:1] for name, array in data().items()},
        "data-huge": data(x=data()["x"] * np.float32(1e30)),
    }.items():
        np.savez(folder / f"{name}.npz", **arrays)
    write_bad_models(folder)
    return folder


def _newer(artifact: bytes) -> bytes:
    """The artifact with the next version in a header whose checksum is right."""
    header = np.frombuffer(artifact, tables.HEADER, count=1).copy()
    header["version"] += 1
    header["header_crc32"] = zlib.crc32(header.tobytes()[:-4])
    return header.tobytes() + artifact[tables.HEADER.itemsize :]


_TRAIN = "edgec train tiny.edge --epochs 1 --lr 0.1 --threads 1 --data "

_SEARCH = "edgec search tiny.onnx --batch 1 --train-batch 4 -o found.toml "

# What is wrong: the command that shows it.
CASES = {
    "no such model": "edgec compile nowhere.onnx",
    "not an ONNX file": "edgec compile notes.onnx",
    "a truncated ONNX file": "edgec compile cut.onnx --batch 1",
    "unknown operators": "edgec check odd.onnx --batch 1",
    "a missing shape": "edgec compile tiny.onnx",
    "a shape for no input": "edgec compile tiny.onnx --shape y=1,6",
    "a circle of nodes": "edgec check cycle.onnx",
    "a tensor that nothing defines": "edgec check undefined.onnx",
    "shapes inside that do not fit": "edgec check mismatch.onnx",
    "one name for two results": "edgec check two-names.onnx",
    "one name for two weights": "edgec check two-weights.onnx",
    "a weight with other bytes than its shape": "edgec check wrong-bytes.onnx",
    "a negative shape": "edgec check negative.onnx",
    "a shape whose product overflows": "edgec check overflow.onnx",
    "an input of absurd size": "edgec check huge-input.onnx",
    "a result of absurd size": "edgec check huge-result.onnx",
    "a hundred thousand axes": "edgec check huge-rank.onnx",
    "a list of a hundred thousand": "edgec check huge-list.onnx",
    "more axes than an artifact has": "edgec check nine-axes.onnx",
    "a name of a megabyte": "edgec check long-name.onnx",
    "a name that paints the terminal": "edgec check control.onnx",
    "a value's name that clears the terminal": "edgec check control-value.onnx",
    "a loop counted by data": "edgec compile by-data.onnx",
    "a loop without end": "edgec check endless.onnx",
    "an operator behind nested branches": "edgec check nested.onnx",
    "too many and too few operands": "edgec check arity.onnx",
    "an opset of the future": "edgec check future.onnx",
    "a model without outputs": "edgec check no-outputs.onnx",
    "an output that is an input": "edgec compile echo.onnx",
    "external data that is missing": "edgec check data-missing.onnx",
    "external data that is too short": "edgec check data-short.onnx",
    "external data from the root": "edgec check data-root.onnx",
    "external data from above": "edgec check data-up.onnx",
    "external data by a link out of the folder": "edgec check data-link.onnx",
    "external data from a device": "edgec check data-device.onnx",
    "external data from a pipe": "edgec check data-fifo.onnx",
    "external data at a negative offset": "edgec check data-offset.onnx",
    "external data of another length": "edgec check data-length.onnx",
    "weights of four bits": "edgec check int4.onnx",
    "a file too large for protobuf": "edgec compile large.onnx",
    "a pipe as a model": "edgec compile pipe.onnx",
    "the keyboard as a model": "edgec compile -",
    "an unknown target, nearly right": "edgec compile tiny.onnx --batch 1 --target x68,rpi4",
    "an unknown target": "edgec compile tiny.onnx --batch 1 --target toaster",
    "an unknown loss": "edgec compile tiny.onnx --batch 1 --train --loss softmax",
    "a memory budget that is no size": "edgec check tiny.onnx --batch 1 --train --memory-budget lots",
    "a memory budget that cannot be met": "edgec check tiny.onnx --batch 4 --target rpi4 --train --memory-budget 200",
    "a head in place of no layer": "edgec check tiny.onnx --batch 1 --new-head 5:conv9",
    "an image in place of no input": "edgec check tiny.onnx --batch 1 --input-image y=0.5,0.5",
    "an image that is a vector": "edgec check tiny.onnx --batch 1 --input-image x=0.5,0.5",
    "a deviation of nothing": "edgec check tiny.onnx --batch 1 --input-image x=0.5,0",
    "no folder for the artifact": "edgec compile tiny.onnx --batch 1 -o nowhere/tiny.edge",
    "a wrong input name": "edgec run infer.edge --input name.npz",
    "a wrong dtype": "edgec run infer.edge --input dtype.npz",
    "a wrong shape": "edgec run infer.edge --input shape.npz",
    "not an .npz file": "edgec run infer.edge --input notes.onnx",
    "pickled objects": "edgec run infer.edge --input pickled.npz",
    "an output that is not finite": "edgec run infer.edge --input nan.npz --check-finite",
    "an artifact for another CPU": "edgec run arm.edge --input good.npz",
    "an artifact of a newer format": "edgec run newer.edge --input good.npz",
    "a newer format, inspected": "edgec inspect newer.edge",
    "a damaged artifact": "edgec run flipped.edge --input good.npz",
    "a damaged artifact, inspected": "edgec inspect flipped.edge",
    "a truncated artifact": "edgec run cut.edge --input good.npz",
    "not an artifact": "edgec run tiny.onnx --input good.npz",
    "no artifact": "edgec run nowhere.edge --input good.npz",
    "no such program": "edgec run infer.edge --program train --input good.npz",
    "no such device": "edgec run infer.edge --input good.npz --device quemu",
    "nothing in it for the device": "edgec run infer.edge --input good.npz --device qemu",
    "no such variant": "edgec run infer.edge --input good.npz --target rpi4",
    "training what cannot be trained": "edgec train infer.edge --epochs 1 --lr 0.1 --data data.npz",
    "a label out of range": _TRAIN + "data-label.npz",
    "data with other names": _TRAIN + "data-name.npz",
    "no samples": _TRAIN + "data-none.npz",
    "a loss that is not finite": _TRAIN + "data-huge.npz",
    "live classes of an old head": _TRAIN + "data.npz --classes 2",
    "a checkpoint of another model": _TRAIN + "data.npz --checkpoint wide.edgeckpt --resume",
    "not a checkpoint": _TRAIN + "data.npz --checkpoint data.npz --resume",
    "another model than the artifact's": "edgec verify wide.onnx infer.edge",
    "comparing speed with a model that is gone": "edgec bench arm.edge --compare torch --model gone.onnx",
    "exporting into another model": "edgec export tiny.edge --model wide.onnx --checkpoint wide.edgeckpt -o new.onnx",
    "a search without labels": _SEARCH + "--memory-budget 1MB --data good.npz",
    "a search with data of another shape": _SEARCH + "--memory-budget 1MB --data other.npz",
    "a search with a label out of range": _SEARCH + "--memory-budget 1MB --data data-label.npz",
    "a search with too few samples": _SEARCH + "--memory-budget 1MB --data one.npz",
    "a search within too few bytes": _SEARCH + "--memory-budget 100B --data data.npz",
    "auto without data": "edgec compile tiny.onnx --batch 1 --train --update auto --memory-budget 1MB",
    "auto without a budget": "edgec compile tiny.onnx --batch 1 --train --update auto --data data.npz",
    "auto where nothing is measured": "edgec check tiny.onnx --batch 1 --train --update auto --memory-budget 1MB",
}


def snapshots() -> dict[str, str]:
    """Case to what stands in the file, its command first."""
    parts = SNAPSHOTS.read_text().split("== ")[1:] if SNAPSHOTS.exists() else []
    return {name: text.strip() for name, _, text in (part.partition("\n") for part in parts)}


def hold(name: str, command: str, said: str) -> None:
    """Compare with the snapshot, or take it."""
    now = f"$ {command}\n{said.strip()}"
    known = snapshots()
    if os.environ.get("EDGEC_UPDATE") == "1":
        known[name] = now
        order = [*CASES, *(other for other in known if other not in CASES)]
        SNAPSHOTS.write_text("\n\n".join(f"== {case}\n{known[case]}" for case in order if case in known) + "\n")
    else:
        assert now == known.get(name), "EDGEC_UPDATE=1 writes the snapshots anew"


def check_form(status: int, out: str, err: str) -> None:
    first, *rest = err.splitlines()
    assert status == 1, (status, out, err)
    assert first.startswith("error[E") and first[6:11] in CODES and "Traceback" not in err
    assert any(line.startswith("  --> ") for line in rest), f"no place:\n{err}"
    assert any(line.startswith("hint: ") for line in rest), f"no hint:\n{err}"
    assert str(Path.cwd()) not in err


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """Runs a command line in the folder: exit status, stdout, stderr."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("EDGEC_CACHE", str(folder / "cache"))

    def call(command: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(command.split()[1:])
        return caught.value.code, *capsys.readouterr()

    return call


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_said_well(run, name):
    status, out, err = run(CASES[name])
    check_form(status, out, err)
    hold(name, CASES[name], err)


def test_without_a_linker_for_the_target(run, folder, monkeypatch):
    monkeypatch.setenv("PATH", str(folder))
    command = "edgec compile tiny.onnx --batch 2 --target rpi4 -o never.edge"
    status, out, err = run(command)
    check_form(status, out, err)
    hold("no linker for the target", command, err)
    assert not (folder / "never.edge").exists()


# Commands that write, by what they write, and the bytes that a file may have.
WRITERS = {
    "artifact": (f"edgec compile tiny.onnx --batch {BATCH} -o full.edge", 24_000),
    "kernels": (f"edgec compile tiny.onnx --batch {BATCH} -o full.edge", 200),
    "checkpoint": (_TRAIN + "data.npz --checkpoint full.edgeckpt", 200),
    "outputs": ("edgec run infer.edge --input good.npz -o full.npz", 200),
    "model": ("edgec export wide.edge --model wide.onnx --checkpoint wide.edgeckpt -o full.onnx", 200),
    "trace": ("edgec profile infer.edge --runs 1 --trace full.json", 200),
}


@pytest.mark.parametrize("what", WRITERS)
def test_a_full_disk_leaves_no_half_file(folder, what):
    """Files may grow to some bytes only, as if the disk had no more room; what stood there stays."""
    command, room = WRITERS[what]
    target = folder / next(word for word in command.split() if word.startswith("full."))
    target.write_text("what stood there")
    before = sorted(folder.iterdir())
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *command.split()[1:]],
        cwd=folder,
        env=os.environ | {"EDGEC_CACHE": str(folder / "cache"), "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
        capture_output=True,
        text=True,
    )
    assert "error[E0505]" in done.stderr
    check_form(done.returncode, done.stdout, done.stderr)
    assert target.read_text() == "what stood there" and sorted(folder.iterdir()) == before
    target.unlink()
    if what == "artifact":
        hold("a full disk", command, done.stderr)


def test_a_refused_step_touches_nothing(folder):
    good = {name: array[:BATCH] for name, array in data().items()}
    with edgec.load(folder / "tiny.edge", threads=1) as model:
        for change, lr, code in [({"labels": np.full(BATCH, CLASSES)}, 0.1, "E0604"), ({}, 1e20, "E0605")]:
            before: dict[str, np.ndarray] = {}
            with pytest.raises(RuntimeFailure, match=code):
                for _ in range(5):
                    before = {**model.parameters(), **model.states()}
                    model.step(good | change, lr=lr)
            for name, array in {**model.parameters(), **model.states()}.items():
                np.testing.assert_array_equal(array, before[name])


def test_no_snapshot_is_left_over():
    assert set(snapshots()) == set(CASES) | {"no linker for the target", "a full disk"}
