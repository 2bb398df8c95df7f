"""csrc/storage.c and csrc/crc32.c against abi.Storage and zlib."""

import ctypes
import math
import subprocess
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_artifact import HERE

from edgec.runtime.abi import Storage
from edgec.runtime.encode import Storages

CSRC = HERE.parent / "csrc"

# Elements in pieces of `piece`, as checkpoints and files stream them.
SHIM = """
#include "crc32.h"
#include "storage.h"
void pack(const format_storage *s, char *stored, const char *logical, size_t count, size_t element, size_t piece) {
    storage_cursor cursor;
    storage_start(&cursor, s);
    for (size_t i = 0; i < count; i += piece)
        storage_pack(&cursor, stored, logical + i * element, count - i < piece ? count - i : piece, element);
}
void unpack(const format_storage *s, char *logical, const char *stored, size_t count, size_t element, size_t piece) {
    storage_cursor cursor;
    storage_start(&cursor, s);
    for (size_t i = 0; i < count; i += piece)
        storage_unpack(&cursor, logical + i * element, stored, count - i < piece ? count - i : piece, element);
}
uint32_t crc(const char *data, size_t bytes, size_t first) {
    crc32_table table;
    crc32_init(&table);
    return crc32_update(&table, crc32_update(&table, 0, data, first), data + first, bytes - first);
}
"""


@pytest.fixture(scope="module")
def c(tmp_path_factory):
    folder = tmp_path_factory.mktemp("storage")
    (folder / "shim.c").write_text(SHIM)
    sources = ["shim.c", CSRC / "storage.c", CSRC / "crc32.c"]
    flags = ["-std=c11", "-O1", "-fPIC", "-shared", f"-I{CSRC}"]
    subprocess.run(["gcc", *flags, *sources, "-o", "storage.so"], cwd=folder, check=True)
    library = ctypes.CDLL(str(folder / "storage.so"))
    size = ctypes.c_size_t
    library.pack.argtypes = library.unpack.argtypes = (
        ctypes.c_char_p,
        ctypes.c_void_p,
        ctypes.c_void_p,
        size,
        size,
        size,
    )
    library.storage_convert.argtypes = (ctypes.c_char_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p, size, size)
    library.storage_convert.restype = library.pack.restype = library.unpack.restype = None
    library.crc.argtypes, library.crc.restype = (ctypes.c_char_p, size, size), ctypes.c_uint32
    return library


@st.composite
def storages(draw, dims=None):
    if dims is None:
        dims = draw(st.lists(st.integers(0, 5), max_size=5))
    perm = draw(st.permutations(range(len(dims))))
    block = draw(st.integers(0, 7)) if dims else 0
    return Storage(tuple(dims), tuple(perm), block)


@st.composite
def pairs(draw):
    """Two storages of one tensor whose axes are split differently."""
    dims = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    merged = [math.prod(dims[:2]), *dims[2:]]
    return draw(storages(dims)), draw(storages(merged))


def record(storage: Storage) -> bytes:
    table = Storages()
    table.index(storage)
    return table.bytes


def logical(size: int, dtype: str) -> np.ndarray:
    """Every element different, in every byte that matters."""
    return np.arange(1, size + 1).astype(dtype)


@given(storages(), st.sampled_from(["u1", "<u2", "<f4", "<i8"]), st.integers(1, 50))
def test_pack_and_unpack(c, storage, dtype, piece):
    values = logical(storage.size, dtype)
    stored, back = np.zeros_like(values), np.zeros_like(values)
    rest = (values.size, values.itemsize, piece)
    c.pack(record(storage), stored.ctypes.data, values.ctypes.data, *rest)
    np.testing.assert_array_equal(stored, storage.pack(values))
    c.unpack(record(storage), back.ctypes.data, stored.ctypes.data, *rest)
    np.testing.assert_array_equal(back, values)


@given(pairs(), st.sampled_from(["u1", "<f4", "<i8"]))
def test_convert(c, pair, dtype):
    source, target = pair
    values = logical(source.size, dtype)
    stored, converted = source.pack(values), np.zeros_like(values)
    c.storage_convert(
        record(target), converted.ctypes.data, record(source), stored.ctypes.data, values.size, values.itemsize
    )
    np.testing.assert_array_equal(converted, target.pack(values))


def test_the_panels_of_abi(c):
    """By hand: 2 x 5 in panels of 2 columns is [[0,1],[5,6]], [[2,3],[7,8]], [[4],[9]]."""
    stored, values = np.zeros(10, np.int32), np.arange(10, dtype=np.int32)
    c.pack(record(Storage((2, 5), (0, 1), 2)), stored.ctypes.data, values.ctypes.data, 10, 4, 10)
    assert stored.tolist() == [0, 1, 5, 6, 2, 3, 7, 8, 4, 9]


@given(st.binary(max_size=100), st.integers(0, 100))
def test_crc32_is_zlibs(c, data, first):
    assert c.crc(data, len(data), min(first, len(data))) == zlib.crc32(data)
