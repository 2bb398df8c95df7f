"""A checkpoint is the old state or the new one, whole, whenever its writer is killed and whatever call fails."""

import dataclasses
import os
import random
import subprocess
import time

import numpy as np
import pytest
from library_sources import SOURCES, STRICT
from sample_artifact import HERE, HOST, sample, variant

from edgec.runtime.abi import Storage
from edgec.runtime.format import Placement, Region, Tensor, TensorKind
from edgec.runtime.layout import write_artifact
from edgec.runtime.library import Status

CALLS = ("open", "flock", "ftruncate", "write", "fsync", "rename", "close")
LARGE = (512, 1024)  # 2 MB of f32


def large_artifact():
    """The sample with 2 MB of trained panels and 2 MB of state more."""
    panels, rows = Storage(LARGE, (0, 1), block=16), Storage.row_major(LARGE)
    zeros = np.zeros(LARGE, np.float32)
    host, artifact = variant(HOST), sample(variant(HOST))
    more = (Tensor("large", TensorKind.PARAM, zeros, panels), Tensor("moments", TensorKind.STATE, zeros, rows))
    places = (
        Placement(5, Region.PARAM, host.param_bytes, panels, trained=True),
        Placement(6, Region.STATE, host.state_bytes, rows, trained=True),
    )
    host = dataclasses.replace(
        host,
        placements=host.placements + places,
        param_bytes=host.param_bytes + zeros.nbytes,
        state_bytes=host.state_bytes + zeros.nbytes,
    )
    return dataclasses.replace(artifact, tensors=artifact.tensors + more, variants=(host,))


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    path = tmp_path_factory.mktemp("driver") / "driver"
    wrap = "-Wl," + ",".join(f"--wrap={call}" for call in CALLS)
    subprocess.run(
        ["gcc", *STRICT, "-O2", "-pthread", wrap, HERE / "checkpoint_driver.c", *SOURCES, "-o", path], check=True
    )
    return path


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    path = tmp_path_factory.mktemp("artifact") / "sample.edge"
    write_artifact(path, sample(variant(HOST)))
    return path


def said(output: str, word: str, otherwise: int = -1) -> int:
    """The number after the last whole line that begins with `word`."""
    lines = [line.split() for line in output.splitlines(keepends=True) if line.endswith("\n")]
    return next((int(line[1]) for line in reversed(lines) if line[0] == word), otherwise)


class Folder:
    """A folder of one checkpoint and a driver that saves there."""

    def __init__(self, path, driver, artifact):
        self.path, self.checkpoint = path, path / "c.edgeckpt"
        self._command = [driver, artifact, self.checkpoint]

    def run(self, mode: str, call: int = -1) -> subprocess.CompletedProcess:
        """Loads, which proves that the checkpoint is whole, and saves."""
        return subprocess.run([*self._command, mode, str(call)], capture_output=True, text=True, timeout=60)

    def start(self) -> subprocess.Popen:
        return subprocess.Popen([*self._command, "forever"], stdout=subprocess.PIPE, text=True)

    def files(self) -> set[str]:
        return {entry.name for entry in self.path.iterdir()}

    def next_state(self) -> int:
        """The number of the state that is loaded before a save that nothing disturbs."""
        done = self.run("save")
        assert done.returncode == 0, done.stderr
        assert said(done.stdout, "status") == Status.OK and self.files() == {"c.edgeckpt"}
        return said(done.stdout, "loaded")


@pytest.fixture
def folder(tmp_path, driver, artifact):
    folder = Folder(tmp_path, driver, artifact)
    folder.next_state()
    return folder


def test_killed_at_every_system_call(folder):
    outcomes = set()
    for call in range(100):
        old = folder.next_state() + 1
        done = folder.run("kill", call)
        if done.returncode == 0:
            break
        left = folder.files()
        outcomes.add((folder.next_state() - old, len(left)))
    # Before the temporary file; in the midst of it; after the rename.
    assert call > 10 and outcomes == {(0, 1), (0, 2), (1, 1)}


def test_a_failure_of_every_system_call(folder):
    """The status says which state is there, and the temporary file is gone."""
    statuses = []
    for call in range(100):
        old = folder.next_state() + 1
        done = folder.run("fail", call)
        assert done.returncode == 0, done.stderr
        if said(done.stdout, "calls") <= call:
            break
        statuses.append(said(done.stdout, "status"))
        assert folder.files() == {"c.edgeckpt"}
        assert folder.next_state() == old + (statuses[-1] == Status.OK)
    assert set(statuses) == {Status.OK, Status.CANNOT_WRITE}
    # Not vital: the lock, closing what is synced, syncing the folder (open, fsync, close).
    assert statuses.count(Status.OK) == 5


def test_short_writes_are_continued(folder):
    plain = said(folder.run("save").stdout, "calls")
    continued = 0
    for call in range(plain):
        done = folder.run("short", call)
        assert done.returncode == 0 and said(done.stdout, "status") == Status.OK
        continued += said(done.stdout, "calls") - plain
    assert continued >= 8


def test_what_is_left_is_not_trusted(folder):
    """A temporary file of a killed writer, longer than the new one, of which nothing may remain."""
    (folder.path / "c.edgeckpt.tmp").write_bytes(os.urandom(100_000))
    folder.next_state()
    folder.next_state()


def test_two_writers_of_one_path(folder):
    """They take turns: no failure, whole states."""
    writers = [folder.start() for _ in range(3)]
    saved = [0, 0, 0]
    for i, writer in enumerate(writers):
        while saved[i] < 20:
            line = writer.stdout.readline()
            assert line, "a writer ended"
            saved[i] += line.startswith("saved")
    for writer in writers:
        assert writer.poll() is None
        writer.kill()
        writer.communicate()
    folder.next_state()


@pytest.mark.parametrize("kills", [60, pytest.param(1000, marks=pytest.mark.long)])
def test_killed_at_random_moments(kills, tmp_path, driver):
    """While 4 MB are saved again and again."""
    write_artifact(tmp_path / "large.edge", large_artifact())
    (tmp_path / "saves").mkdir()
    folder = Folder(tmp_path / "saves", driver, tmp_path / "large.edge")
    moments = random.Random(kills)
    durable, interrupted, pace = 0, 0, 0.01
    for number in range(kills):
        writer = folder.start()
        first = writer.stdout.readline()
        assert first.startswith("loaded "), "the checkpoint was not whole"
        loaded = int(first.split()[1])
        assert loaded in (durable, durable + 1), "neither the old state nor the new one"
        if number % 10 == 0:  # disks differ, and so does what else the machine does
            began = time.monotonic()
            first += writer.stdout.readline()
            pace = time.monotonic() - began
        time.sleep(moments.uniform(0, 2 * pace))
        writer.kill()
        rest = writer.communicate()[0]
        assert writer.returncode == -9
        durable = said(first + rest, "saved", loaded)
        files = folder.files()
        assert files <= {"c.edgeckpt", "c.edgeckpt.tmp"}
        interrupted += "c.edgeckpt.tmp" in files
    assert durable >= kills // 10 and interrupted > kills // 20
    folder.next_state()
