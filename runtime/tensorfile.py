"""Files of named arrays (`.tensors`), and checkpoints, which are such files of an artifact's changing tensors.

The bytes are described in `runtime/README.md`; `csrc/tensorfile.c` reads and writes the same ones.
"""

from __future__ import annotations

import contextlib
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgec.runtime.abi import MAX_NAME, MAX_RANK
from edgec.runtime.dtypes import DTYPES, dtype_name, numpy_dtype
from edgec.runtime.errors import RuntimeFailure

MAGIC = b"\x89EDGT\r\n\x1a"
VERSION = 1
ALIGNMENT = 64
SUM_BYTES = 4
HEADER = np.dtype(
    [
        ("magic", "u1", 8),
        ("version", "<u4"),
        ("count", "<u4"),
        ("file_bytes", "<u8"),
        ("fingerprint", "u1", 16),
        ("step", "<u8"),
        ("seed", "<u8"),
        ("name_bytes", "<u4"),
        ("reserved", "<u4"),
    ]
)
ENTRY = np.dtype(
    [
        ("offset", "<u8"),
        ("bytes", "<u8"),
        ("name", "<u4"),
        ("dtype", "u1"),
        ("rank", "u1"),
        ("reserved", "u1", 2),
        ("shape", "<u4", 8),
    ]
)


@dataclass(frozen=True)
class TensorFile:
    """What a file holds. Fingerprint, step and seed are zero where it is no checkpoint."""

    arrays: dict[str, np.ndarray]
    fingerprint: bytes = bytes(16)
    step: int = 0
    seed: int = 0


def _align(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


# ---- Writing. ----


def _plain(array: np.ndarray) -> np.ndarray:
    """Row-major and little-endian."""
    array = np.asarray(array, order="C")
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _entry(name: str, array: np.ndarray) -> np.ndarray:
    entry = np.zeros((), ENTRY)
    try:
        entry["dtype"] = DTYPES.index(dtype_name(array.dtype))
    except KeyError:
        raise RuntimeFailure("E0602", f"`{name}` has dtype {array.dtype}, which tensor files do not hold") from None
    if array.ndim > MAX_RANK or any(extent >= 1 << 32 for extent in array.shape):
        raise RuntimeFailure("E0603", f"`{name}` has shape {array.shape}, more than tensor files hold")
    entry["rank"], entry["bytes"] = array.ndim, array.nbytes
    entry["shape"][: array.ndim] = array.shape
    return entry


def _names(arrays: Mapping[str, np.ndarray]) -> list[bytes]:
    names = [name.encode() for name in arrays]
    for name in names:
        if len(name) > MAX_NAME or b"\0" in name:
            raise RuntimeFailure("E0601", f"`{name.decode()}` is no name for a tensor: too long, or with a zero byte")
    return names


def _pieces(content: TensorFile) -> Iterator[bytes | memoryview]:
    """The file from its beginning to its end."""
    arrays = {name: _plain(array) for name, array in content.arrays.items()}
    names = _names(arrays)
    entries = np.array([_entry(name, array) for name, array in arrays.items()], ENTRY)
    name_bytes = sum(len(name) + 1 for name in names)
    start = end = HEADER.itemsize + entries.nbytes + name_bytes + SUM_BYTES
    offset = 0
    for entry, name in zip(entries, names, strict=True):
        entry["name"], entry["offset"] = offset, _align(end)
        offset += len(name) + 1
        end = _align(end) + int(entry["bytes"])

    header = np.zeros((), HEADER)
    header["magic"], header["version"] = np.frombuffer(MAGIC, "u1"), VERSION
    header["count"], header["name_bytes"], header["file_bytes"] = len(entries), name_bytes, end + SUM_BYTES
    header["fingerprint"] = np.frombuffer(content.fingerprint, "u1")
    header["step"], header["seed"] = content.step, content.seed
    head = header.tobytes() + entries.tobytes() + b"".join(name + b"\0" for name in names)
    yield head + zlib.crc32(head).to_bytes(SUM_BYTES, "little")

    crc, end = 0, start
    for array in arrays.values():
        for piece in (bytes(_align(end) - end), memoryview(array.reshape(-1).view(np.uint8)) if array.size else b""):
            crc = zlib.crc32(piece, crc)
            yield piece
        end = _align(end) + array.nbytes
    yield crc.to_bytes(SUM_BYTES, "little")


def write_tensorfile(path: str | os.PathLike[str], content: TensorFile) -> None:
    """Write to `path` by way of a temporary file beside it: `path` is the old file or the whole new one.

    RuntimeFailure: E0505 cannot be written, E0601, E0602, E0603 a name, dtype or shape that such files do not hold.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as stream:
            for piece in _pieces(content):
                stream.write(piece)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            message = f"the file cannot be written: {error.strerror}"
            raise RuntimeFailure("E0505", message, where=os.fspath(path)) from error
        raise


def write_tensors(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Arrays by name, for `edgec-run`. Fails as `write_tensorfile` does."""
    write_tensorfile(path, TensorFile(dict(arrays)))


# ---- Reading. ----


def _refuse(what: str, where: str) -> RuntimeFailure:
    return RuntimeFailure("E0507", f"not a whole tensor file: {what}", where=where)


def _check_head(data: memoryview, where: str) -> tuple[np.void, np.ndarray, bytes]:
    """Header, entries and names; sizes are those of the file, whatever it claims."""
    if bytes(data[:8]) != MAGIC:
        raise _refuse("another magic number", where)
    if len(data) < HEADER.itemsize + 2 * SUM_BYTES:
        raise _refuse("it is cut short", where)
    header = np.frombuffer(data[: HEADER.itemsize], HEADER)[0]
    if header["version"] == 0:
        raise _refuse("its version is 0", where)
    if header["version"] > VERSION:
        raise RuntimeFailure("E0507", f"the file has the newer format {header['version']}", where=where)
    entries_end = HEADER.itemsize + int(header["count"]) * ENTRY.itemsize
    head_end = entries_end + int(header["name_bytes"])
    if header["file_bytes"] != len(data) or head_end + 2 * SUM_BYTES > len(data):
        raise _refuse(f"it has {len(data)} bytes, and says {header['file_bytes']}", where)
    for start, end in ((0, head_end), (head_end + SUM_BYTES, len(data) - SUM_BYTES)):
        if zlib.crc32(data[start:end]) != int.from_bytes(data[end : end + SUM_BYTES], "little"):
            raise _refuse("a checksum differs", where)
    entries = np.frombuffer(data[HEADER.itemsize : entries_end], ENTRY)
    return header, entries, bytes(data[entries_end:head_end])


def _read_arrays(data: memoryview, entries: np.ndarray, names: bytes, where: str) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    end = HEADER.itemsize + entries.nbytes + len(names) + SUM_BYTES
    name_start = 0
    for entry in entries:
        name_end = names.find(b"\0", name_start, name_start + MAX_NAME + 1)
        rank, size, start = int(entry["rank"]), int(entry["bytes"]), _align(end)
        shape = tuple(map(int, entry["shape"][:rank]))
        end = start + size
        if entry["name"] != name_start or name_end < 0 or rank > MAX_RANK or entry["dtype"] >= len(DTYPES):
            raise _refuse("an entry contradicts itself", where)
        dtype = numpy_dtype(DTYPES[entry["dtype"]])
        if math.prod(shape) * dtype.itemsize != size or entry["offset"] != start or end + SUM_BYTES > len(data):
            raise _refuse("an entry contradicts itself", where)
        try:
            name = names[name_start:name_end].decode()
        except UnicodeDecodeError:
            raise _refuse("a name is not UTF-8", where) from None
        if name in arrays:
            raise _refuse(f"it holds `{name}` twice", where)
        arrays[name] = np.frombuffer(data[start:end], dtype).reshape(shape)
        name_start = name_end + 1
    if name_start != len(names) or end + SUM_BYTES != len(data):
        raise _refuse("it holds more than its entries", where)
    return arrays


def read_tensorfile(path: str | os.PathLike[str]) -> TensorFile:
    """All of a tensor file or checkpoint; the arrays are read only. RuntimeFailure E0507."""
    where = os.fspath(path)
    try:
        data = memoryview(Path(path).read_bytes())
    except OSError as error:
        raise RuntimeFailure("E0507", f"the file cannot be read: {error.strerror}", where=where) from error
    header, entries, names = _check_head(data, where)
    arrays = _read_arrays(data, entries, names, where)
    return TensorFile(arrays, header["fingerprint"].tobytes(), int(header["step"]), int(header["seed"]))


def read_tensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Arrays by name. RuntimeFailure E0507."""
    return read_tensorfile(path).arrays
