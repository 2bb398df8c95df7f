"""Tensor files: Python's reader and writer against C's, and everything that both refuse."""

import zlib

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_artifact import HOST, sample, variant

from edgec.runtime import RuntimeFailure, load
from edgec.runtime.binding import Checkpoint
from edgec.runtime.layout import write_artifact
from edgec.runtime.tensorfile import (
    ENTRY,
    HEADER,
    SUM_BYTES,
    TensorFile,
    read_tensorfile,
    read_tensors,
    write_tensorfile,
    write_tensors,
)

ARRAYS = {
    "x": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "labels": np.array([3, -1], np.int64),
    "an empty one": np.zeros((0, 7), np.uint8),
    "lr": np.array(0.5, np.float32),
    "größe": np.array([True, False, True]),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("tensors") / "t.tensors"
    write_tensors(path, ARRAYS)
    return path.read_bytes()


def assert_same(left, right):
    assert list(left) == list(right)
    for name, array in left.items():
        assert array.dtype == right[name].dtype and array.shape == right[name].shape
        np.testing.assert_array_equal(array, right[name])


def test_round_trip(tmp_path):
    write_tensors(tmp_path / "t", ARRAYS)
    assert_same(read_tensors(tmp_path / "t"), ARRAYS)
    assert [entry.name for entry in tmp_path.iterdir()] == ["t"]
    write_tensors(tmp_path / "t", {})
    assert read_tensors(tmp_path / "t") == {}


shapes = st.lists(st.integers(0, 5), max_size=8).map(tuple)
dtypes = st.sampled_from(
    [np.float16, ml_dtypes.bfloat16, np.float32, np.float64, np.int8, np.uint8, np.int32, np.int64, np.bool_]
)
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)


@given(st.dictionaries(names, st.tuples(shapes, dtypes), max_size=6), st.integers(0, 2**64 - 1))
@settings(max_examples=60)
def test_any_arrays_and_both_readers(tmp_path_factory, drawn, number):
    """C's reader accepts what Python writes."""
    path = tmp_path_factory.mktemp("any") / "t"
    random = np.random.default_rng(number)
    arrays = {name: random.integers(0, 100, shape).astype(dtype) for name, (shape, dtype) in drawn.items()}
    written = TensorFile(arrays, random.bytes(16), step=number, seed=number // 3)
    write_tensorfile(path, written)
    back = read_tensorfile(path)
    assert_same(back.arrays, arrays)
    assert Checkpoint.of(path) == Checkpoint(written.step, written.seed, written.fingerprint)
    assert (back.fingerprint, back.step, back.seed) == (written.fingerprint, written.step, written.seed)


def test_both_writers_write_the_same_bytes(tmp_path):
    write_artifact(tmp_path / "a.edge", sample(variant(HOST)))
    with load(tmp_path / "a.edge", threads=1) as model:
        model.save_checkpoint(tmp_path / "c", step=1 << 40, seed=2)
    write_tensorfile(tmp_path / "python", read_tensorfile(tmp_path / "c"))
    assert (tmp_path / "python").read_bytes() == (tmp_path / "c").read_bytes()


def test_layouts_of_numpy(tmp_path):
    """Strided, byte-swapped and Fortran arrays arrive as plain ones."""
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    arrays = {"strided": base[::2, ::-1], "fortran": np.asfortranarray(base), "big": base.astype(">f4")}
    write_tensors(tmp_path / "t", arrays)
    for name, array in read_tensors(tmp_path / "t").items():
        assert array.dtype == np.dtype("<f4")
        np.testing.assert_array_equal(array, arrays[name])


def test_uint16_is_the_bits_of_bf16(tmp_path):
    bits = np.array([0x3F80, 1, 0xFFFF], np.uint16)
    write_tensors(tmp_path / "t", {"t": bits})
    np.testing.assert_array_equal(read_tensors(tmp_path / "t")["t"].view(np.uint16), bits)


@pytest.mark.parametrize(
    "arrays, code",
    [
        ({"a": np.zeros(2, np.complex64)}, "E0602"),
        ({"a": np.array(["text"])}, "E0602"),
        ({"a": np.zeros((1,) * 9)}, "E0603"),
        ({"é" * 2048: np.zeros(2)}, "E0601"),
        ({"a\0b": np.zeros(2)}, "E0601"),
    ],
)
def test_what_cannot_be_written(tmp_path, arrays, code):
    with pytest.raises(RuntimeFailure) as caught:
        write_tensors(tmp_path / "t", arrays)
    assert caught.value.code == code and not list(tmp_path.iterdir())


def test_places_that_cannot_be_written(tmp_path):
    with pytest.raises(RuntimeFailure) as caught:
        write_tensors(tmp_path / "no/such", ARRAYS)
    assert caught.value.code == "E0505"


# ---- Refusals, by both. ----


def accepted(tmp_path, data):
    """Python's verdict and C's."""
    path = tmp_path / "t"
    path.write_bytes(data)
    verdicts = []
    for read, code in ((read_tensors, "E0507"), (Checkpoint.of, "E0506")):
        try:
            read(path)
            verdicts.append(True)
        except RuntimeFailure as failure:
            assert failure.code == code and failure.where == str(path)
            verdicts.append(False)
    return tuple(verdicts)


def seal(data):
    """The same with both checksums right."""
    header = np.frombuffer(data, HEADER, count=1)[0]
    head = HEADER.itemsize + int(header["count"]) * ENTRY.itemsize + int(header["name_bytes"])
    sealed = bytearray(data)
    if head + 2 * SUM_BYTES <= len(data):
        for start, end in ((0, head), (head + SUM_BYTES, len(data) - SUM_BYTES)):
            sealed[end : end + SUM_BYTES] = zlib.crc32(sealed[start:end]).to_bytes(SUM_BYTES, "little")
    return bytes(sealed)


def test_damage_and_cuts(tmp_path, data):
    assert accepted(tmp_path, data) == (True, True) and seal(data) == data
    for i in range(0, len(data), 3):
        changed = bytearray(data)
        changed[i] ^= 1 << i % 8
        assert accepted(tmp_path, changed) == (False, False)
        assert accepted(tmp_path, data[:i]) == (False, False)
    assert accepted(tmp_path, data + b"\0") == (False, False)


def field(data, entry, name):
    """Where a field is, and its type."""
    record, start = (HEADER, 0) if entry < 0 else (ENTRY, HEADER.itemsize + entry * ENTRY.itemsize)
    dtype, offset = record.fields[name][:2]
    return start + offset, dtype.base


HUGE = 1 << 63


@pytest.mark.parametrize(
    "entry, name, value",
    [
        (-1, "version", 0),
        (-1, "version", 2),
        (-1, "count", 4),
        (-1, "count", 6),
        (-1, "count", 0xFFFFFFFF),
        (-1, "file_bytes", HUGE),
        (-1, "name_bytes", 0),
        (-1, "name_bytes", 0xFFFFFFF0),
        (0, "offset", 0),
        (0, "offset", HUGE),
        (0, "bytes", 97),
        (0, "bytes", HUGE),
        (0, "name", 1),
        (0, "name", 0xFFFFFFFF),
        (0, "dtype", 9),
        (0, "dtype", 3),
        (0, "rank", 9),
        (0, "rank", 2),
        (0, "shape", 3),
        (0, "shape", 0xFFFFFFFF),
        (1, "offset", 0),
        (4, "bytes", 2),
        (4, "bytes", 4),
    ],
)
def test_lies_behind_right_checksums(tmp_path, data, entry, name, value):
    place, dtype = field(data, entry, name)
    changed = bytearray(data)
    changed[place : place + dtype.itemsize] = value.to_bytes(dtype.itemsize, "little")
    assert changed != data
    assert accepted(tmp_path, seal(changed)) == (False, False)


@given(st.integers(0, 400), st.integers(0, 255), st.integers(0, 400), st.integers(0, 255))
@settings(max_examples=150)
def test_both_readers_agree(tmp_path_factory, data, place, value, second, another):
    """Two bytes changed, checksums right. Names may then be no UTF-8 or equal, which Python alone refuses."""
    changed = bytearray(data)
    changed[place], changed[second] = value, another
    python, c = accepted(tmp_path_factory.mktemp("agree"), seal(changed))
    names_start = HEADER.itemsize + len(ARRAYS) * ENTRY.itemsize
    names_end = names_start + sum(len(name.encode()) + 1 for name in ARRAYS)
    assert python == c or (c and (names_start <= place < names_end or names_start <= second < names_end))


def test_a_name_that_occurs_twice(tmp_path, data):
    changed = seal(data.replace(b"x\0labels\0", b"x\0x\0bels\0"))
    assert accepted(tmp_path, changed) == (False, False)  # six names for five arrays
    two = {"ab": np.zeros(1), "cd": np.ones(1)}
    write_tensors(tmp_path / "two", two)
    twice = seal((tmp_path / "two").read_bytes().replace(b"cd\0", b"ab\0"))
    assert accepted(tmp_path, twice) == (False, True)


def test_files_that_are_none(tmp_path):
    for content in (b"", b"\x89EDGT", b"PK\3\4" + bytes(100)):
        assert accepted(tmp_path, content) == (False, False)
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(RuntimeFailure) as caught:
            read_tensors(path)
        assert caught.value.code == "E0507"
