"""What surrounds a compilation: signals, odd names and places, caches that cannot be written, another one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest

from edgec.tools.testing.models import small_cnn_onnx

# A terminal's Ctrl-C reaches Python as KeyboardInterrupt; a shell's background job would have it ignored.
COMMAND = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from edgec.tools.cli import main
main()
"""
ODD = os.fsdecode(b"caf\xe9.onnx")  # Latin-1


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model, and a cache that its kernels are in."""
    folder = tmp_path_factory.mktemp("last")
    onnx.save(small_cnn_onnx(0), folder / "cnn.onnx")
    done = start(folder, folder / "cache", "compile", "cnn.onnx", "--batch", "1", "-o", "first.edge").wait()
    assert done == 0
    return folder


def start(folder: Path, cache: Path | None, *words: str, **environment: str | None) -> subprocess.Popen:
    variables = os.environ | {"EDGEC_CACHE": cache and str(cache)} | environment
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words],
        cwd=folder,
        env={name: value for name, value in variables.items() if value is not None},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("number", "status", "words"), [(signal.SIGINT, 130, ["interrupted"]), (signal.SIGTERM, 143, [])]
)
def test_an_interrupted_compilation_leaves_nothing_behind(tmp_path: Path, number: int, status: int, words: list[str]):
    """When compile processes are at work, in the middle of files of their own."""
    onnx.save(small_cnn_onnx(0), tmp_path / "cnn.onnx")
    (tmp_path / "scratch").mkdir()
    process = start(
        tmp_path, tmp_path / "cache", "compile", "cnn.onnx", "--batch", "1", TMPDIR=str(tmp_path / "scratch")
    )
    while not list((tmp_path / "scratch").rglob("*.o")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status and said.split() == words
    assert list((tmp_path / "scratch").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["cnn.onnx", "scratch"]
    assert not list((tmp_path / "cache").rglob(".*"))


def test_names_that_are_no_utf8(folder: Path):
    shutil.copy(folder / "cnn.onnx", folder / ODD)
    for words in (["check", ODD, "--batch", "1"], ["compile", ODD, "--batch", "1"], ["inspect", f"{ODD[:-5]}.edge"]):
        process = start(folder, folder / "cache", *words)
        out, err = process.communicate()
        assert process.returncode == 0, err
        assert "caf\\udce9" in out or "caf\\xe9" in out
    process = start(folder, folder / "cache", "check", ODD[:-1])
    assert process.communicate()[1].startswith("error[E0106]") and process.returncode == 1


def test_a_cache_that_cannot_be_written_is_none(folder: Path):
    process = start(folder, Path("cnn.onnx/cache"), "compile", "cnn.onnx", "--batch", "1", "-o", "none.edge")
    assert process.wait() == 0, process.communicate()
    assert (folder / "none.edge").read_bytes() == (folder / "first.edge").read_bytes()


def test_without_a_home(folder: Path):
    variables = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "EDGEC_CACHE"))
    process = start(folder, None, "targets", **variables)
    out, err = process.communicate()
    assert process.returncode == 0 and "x86" in out, err


def test_two_at_a_time_share_a_cache(folder: Path, tmp_path: Path):
    shutil.copy(folder / "cnn.onnx", tmp_path)
    words = ("compile", "cnn.onnx", "--batch", "1", "-o")
    both = [start(tmp_path, tmp_path / "cache", *words, name) for name in ("a.edge", "b.edge")]
    assert [process.wait() for process in both] == [0, 0]
    assert (tmp_path / "a.edge").read_bytes() == (tmp_path / "b.edge").read_bytes()
    assert not list((tmp_path / "cache").rglob(".*"))
