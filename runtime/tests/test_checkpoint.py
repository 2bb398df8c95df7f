"""Checkpoints: what they hold, moving between targets, exact resume, every refusal."""

import dataclasses
import subprocess
import sys
import threading

import numpy as np
import pytest
from sample_artifact import HOST, feeds, placements, sample, variant

from edgec.runtime import RuntimeFailure, load
from edgec.runtime.abi import Storage
from edgec.runtime.binding import Checkpoint
from edgec.runtime.layout import write_artifact
from edgec.runtime.tensorfile import read_tensorfile, write_tensorfile

FINGERPRINT = bytes(range(16))


@pytest.fixture
def saved(path, tmp_path):
    """A checkpoint after three steps."""
    with load(path, threads=1) as model:
        train(model, 3)
        model.save_checkpoint(tmp_path / "c.edgeckpt", step=3, seed=1 << 63)
    return tmp_path / "c.edgeckpt"


def train(model, steps, seed=0):
    return [model.step(feeds(seed + i), lr=0.05) for i in range(steps)]


def everything(model):
    return {name: array.tobytes() for name, array in {**model.parameters(), **model.states()}.items()}


def test_it_holds_what_training_changes(model, saved):
    """Trained parameters and states in their own shapes, whatever the storage; nothing frozen."""
    train(model, 3)
    content = read_tensorfile(saved)
    assert list(content.arrays) == ["w", "steps"]
    np.testing.assert_array_equal(content.arrays["w"], model.parameters()["w"])
    np.testing.assert_array_equal(content.arrays["steps"], model.states()["steps"])
    assert (content.fingerprint, content.step, content.seed) == (FINGERPRINT, 3, 1 << 63)
    assert Checkpoint.of(saved) == Checkpoint(3, 1 << 63, FINGERPRINT)


def test_the_same_state_is_the_same_file(path, saved, tmp_path):
    with load(path, threads=2) as model:
        train(model, 3)
        model.save_checkpoint(tmp_path / "again", step=3, seed=1 << 63)
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()


_RESUME = """
import sys
sys.path[:] = sys.argv[3:]
from test_checkpoint import train
from edgec.runtime import load
with load(sys.argv[1], threads=1) as model:
    loaded = model.load_checkpoint(sys.argv[2])
    train(model, 4, seed=loaded.step)
    model.save_checkpoint(sys.argv[2], step=loaded.step + 4, seed=loaded.seed)
"""


def test_resuming_in_another_process_is_exact(path, model, saved):
    """Three steps, a new process, four more: the bytes of seven without interruption."""
    subprocess.run([sys.executable, "-c", _RESUME, path, saved, *sys.path], check=True)
    train(model, 7)
    unbroken = everything(model)
    model.load_checkpoint(saved)
    assert everything(model) == unbroken
    assert Checkpoint.of(saved).step == 7


def test_it_moves_between_storages(saved, model, tmp_path):
    """Another target keeps w transposed: the same numbers arrive."""
    places = list(placements())
    places[0] = dataclasses.replace(places[0], storage=Storage((8, 6), (1, 0)))
    other = dataclasses.replace(variant(HOST), placements=tuple(places))
    write_artifact(tmp_path / "other.edge", sample(other))
    model.load_checkpoint(saved)
    with load(tmp_path / "other.edge", threads=1) as moved:
        assert moved.load_checkpoint(saved) == Checkpoint(3, 1 << 63, FINGERPRINT)
        assert everything(moved) == everything(model)
        moved.save_checkpoint(tmp_path / "back", step=3, seed=1 << 63)
    assert (tmp_path / "back").read_bytes() == saved.read_bytes()


def test_names_count_and_not_their_order(saved, model):
    content = read_tensorfile(saved)
    arrays = {"steps": np.int32(40), "w": content.arrays["w"] * 2}
    write_tensorfile(saved, dataclasses.replace(content, arrays=arrays))
    model.load_checkpoint(saved)
    np.testing.assert_array_equal(model.parameters()["w"], arrays["w"])
    assert model.states()["steps"] == 40


def test_sessions_see_what_was_loaded(saved, model):
    session = model.session(1)
    x = feeds()["x"]
    train(model, 3)
    after = session.run("infer", {"x": x})[1]["y"]
    train(model, 1)
    model.load_checkpoint(saved)
    np.testing.assert_array_equal(session.run("infer", {"x": x})[1]["y"], after)


def test_saving_while_another_thread_trains(path, model, tmp_path):
    """Every file holds the parameters and the counter of one moment between two steps."""
    batch, enough = feeds(), threading.Event()

    def run():
        while not enough.is_set():
            model.step(batch, lr=0.001)

    first = int(model.states()["steps"])
    trainer = threading.Thread(target=run)
    trainer.start()
    moments = []
    for _ in range(20):
        model.save_checkpoint(tmp_path / "c")
        moments.append(read_tensorfile(tmp_path / "c").arrays)
    enough.set()
    trainer.join()
    with load(path, threads=1) as again:
        done = first
        for arrays in moments:
            for _ in range(int(arrays["steps"]) - done):
                again.step(batch, lr=0.001)
            done = int(arrays["steps"])
            np.testing.assert_array_equal(arrays["w"], again.parameters()["w"])
    assert done > first


# ---- Refusals. ----


def wrong_arrays(content):
    """Checkpoints that are whole and fit another artifact."""
    w, steps = content.arrays["w"], content.arrays["steps"]
    yield {}
    yield {"w": w}
    yield {"w": w, "steps": steps, "shift": np.zeros((3, 2), np.float32)}
    yield {"v": w, "steps": steps}
    yield {"w": w, "steps": steps.astype(np.int64)}
    yield {"w": w.reshape(6, 8), "steps": steps}
    yield {"w": w, "steps": steps.reshape(1)}
    yield {"w": w[:7], "steps": steps}


def test_checkpoints_of_other_artifacts(saved, model):
    content = read_tensorfile(saved)
    wrong = [dataclasses.replace(content, arrays=arrays) for arrays in wrong_arrays(content)]
    wrong += [dataclasses.replace(content, fingerprint=bytes(16))]
    before = everything(model)
    for changed in wrong:
        write_tensorfile(saved, changed)
        with pytest.raises(RuntimeFailure, match="another graph") as caught:
            model.load_checkpoint(saved)
        assert caught.value.code == "E0506" and caught.value.where == str(saved) and caught.value.hint
        assert everything(model) == before


def test_damage_anywhere_is_seen(saved, model):
    """One bit at every byte, and every length that is too short."""
    data, before = saved.read_bytes(), everything(model)
    damaged = [data[:i] + bytes([data[i] ^ 1 << i % 8]) + data[i + 1 :] for i in range(len(data))]
    for changed in [*damaged, *(data[:i] for i in range(len(data))), data + b"\0"]:
        saved.write_bytes(changed)
        with pytest.raises(RuntimeFailure) as caught:
            model.load_checkpoint(saved)
        assert caught.value.code == "E0506"
    assert everything(model) == before


def test_a_newer_format(saved, model):
    data = bytearray(saved.read_bytes())
    data[8] = 2
    saved.write_bytes(data)
    with pytest.raises(RuntimeFailure, match="newer format") as caught:
        model.load_checkpoint(saved)
    assert caught.value.code == "E0506"


def test_files_that_are_none(model, path, tmp_path):
    for file, code in ((tmp_path / "none", "E0507"), (tmp_path, "E0507"), (path, "E0506")):
        with pytest.raises(RuntimeFailure) as caught:
            model.load_checkpoint(file)
        assert caught.value.code == code
        with pytest.raises(RuntimeFailure):
            Checkpoint.of(file)


def test_places_that_cannot_be_written(model, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.tmp").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path / "no/such", tmp_path / "folder", tmp_path / ("x" * 254), tmp_path / "link"):
        with pytest.raises(RuntimeFailure) as caught:
            model.save_checkpoint(path)
        assert caught.value.code == "E0505" and caught.value.where == str(path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder", "link.tmp"]


def test_the_old_file_stays_when_the_disk_is_full(path, saved):
    """A limit on file sizes stands in for it: the write fails in the middle."""
    before = saved.read_bytes()
    code = """
import resource, signal, sys
from edgec.runtime import load
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with load(sys.argv[1], threads=1) as model:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
    try:
        model.save_checkpoint(sys.argv[2], step=4)
    except Exception as failure:
        print(failure.code)
"""
    done = subprocess.run([sys.executable, "-c", code, path, saved], capture_output=True, text=True, check=True)
    assert done.stdout == "E0505\n"
    assert saved.read_bytes() == before and [entry.name for entry in saved.parent.iterdir()] == [saved.name]
