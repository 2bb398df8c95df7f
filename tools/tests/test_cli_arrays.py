"""Reading .npz files that lie about themselves, and writing files whole or not at all."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.lib import format as npy

from edgec.graph.errors import UserError
from edgec.tools.cli.arrays import read_arrays, whole_file, write_arrays


def header(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    stream = io.BytesIO()
    npy.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_arrays(path)
    assert caught.value.code == "E0507" and caught.value.where == str(path)
    return caught.value.message


def test_arrays_come_back(tmp_path):
    arrays = {
        "x": np.arange(6, dtype=np.float32).reshape(2, 3),
        "turned": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "empty": np.zeros((0, 4)),
        "number": np.float32(3),
    }
    write_arrays(tmp_path / "a", arrays)
    np.savez_compressed(tmp_path / "b.npz", **arrays)
    for path in (tmp_path / "a", tmp_path / "b.npz"):
        back = read_arrays(path)
        assert back.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(back[name], array)


@pytest.mark.parametrize("shape", [(1 << 60,), (1 << 40, 1 << 40), (5,), (3, 0), ()])
def test_a_header_that_claims_another_size_is_refused_before_allocating(tmp_path, shape):
    assert "not as large as it says" in refused(archive(tmp_path / "a.npz", x=header(shape) + bytes(16)))


def test_more_than_the_memory_is_refused(tmp_path, monkeypatch):
    path = archive(tmp_path / "a.npz", x=header((1000,)) + bytes(4000))
    assert read_arrays(path)["x"].shape == (1000,)
    monkeypatch.setattr(os, "sysconf", lambda name: 1 if name == "SC_PAGE_SIZE" else 4000)
    assert "this machine has" in refused(path)


def test_python_objects_are_never_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    np.savez(tmp_path / "a.npz", x=np.array([Trap()], object))
    assert "Python objects" in refused(tmp_path / "a.npz")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("cut", [0, 1, 30, 200, -30, -1])
def test_damage_is_refused(tmp_path, cut):
    whole = archive(tmp_path / "a.npz", x=header((100,)) + np.random.default_rng(0).bytes(400)).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:cut] if cut else b"")
    refused(tmp_path / "cut.npz")
    flipped = bytearray(whole)
    flipped[200] ^= 0xFF
    (tmp_path / "flipped.npz").write_bytes(flipped)
    refused(tmp_path / "flipped.npz")


def test_a_file_is_whole_or_what_it_was(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), whole_file(path) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with whole_file(path) as file:
        file.write(b"new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_device_is_written_and_stays_a_device(tmp_path):
    os.mkfifo(pipe := tmp_path / "pipe")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with whole_file(pipe) as file:
        file.write(b"through")
    assert os.read(reader, 100) == b"through" and pipe.is_fifo()
    os.close(reader)
