"""The section ORIGINALS: tensors of the source model that no program reads as they were.

What a compiler has folded, merged or left out comes back to the bit, for a few bits an element where the artifact has
something close: an element of a folded weight, divided by its scale, misses the original by a unit or so in the last
place. The file holds such differences, compressed; nearly all of their bits are zero. C never reads them.

A prediction must be the same on every machine: one IEEE division, and zero where a result is not finite or so small
that a processor might flush it.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from edgec.runtime.dtypes import numpy_dtype
from edgec.runtime.format import Original

DAMAGE = (ValueError, KeyError, TypeError, IndexError, OverflowError, zlib.error)  # what a section that is wrong raises

_TABLE = struct.Struct("<Q")  # bytes of the table, compressed JSON, which comes next; then what its rows hold
_TINY = 1e-30
_BIT_TYPES = {1: np.dtype("<u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4"), 8: np.dtype("<u8")}
_MOST_ZEROS = 1040  # bytes that one of a deflate stream may stand for: no more memory is taken than a file can fill

Read = Callable[[str], np.ndarray]  # a tensor of the artifact by name, in logical form


@dataclass(frozen=True)
class StoredOriginal:
    """One row of the section, with its bytes. What its methods raise is in `DAMAGE`."""

    row: Mapping
    scale: bytes
    difference: bytes

    @property
    def name(self) -> str:
        return self.row["name"]

    @property
    def counter(self) -> str:
        return self.row["counter"]

    @property
    def tensor(self) -> str:
        """What it is predicted from, or the tensor that it is another name of; may be empty."""
        return self.row["tensor"]

    @property
    def is_another_name(self) -> bool:
        return "dtype" not in self.row

    def initial(self, read: Read) -> np.ndarray:
        """Its value in the source model."""
        dtype, shape = _dtype(self.row["dtype"]), tuple(self.row["shape"])
        predicted = None
        if self.tensor:
            scale = np.frombuffer(self.scale, "<f4") if self.scale else None
            predicted = _predict(read(self.tensor), scale, self.row["axis"], dtype, shape)
        bits = _undo(self.difference, predicted, dtype, shape)
        if zlib.crc32(bits) != self.row["crc32"]:
            raise ValueError(f"the checksum of `{self.name}` differs")
        return bits.view(dtype).reshape(shape)

    def value(self, read: Read) -> np.ndarray:
        """Its value now, after whatever training has done."""
        if self.is_another_name:
            return read(self.tensor)
        value = self.initial(read)
        if self.counter:
            value += read(self.counter).astype(value.dtype)
        return value


def encode_originals(originals: Iterable[Original], tensors: Mapping[str, np.ndarray]) -> bytes:
    """The section; `tensors` are those of the artifact, in logical form."""
    rows, pieces = [], []
    for original in originals:
        row = {"name": original.name, "tensor": original.tensor, "counter": original.counter}
        scale = difference = b""
        if original.data is not None:
            data, predicted = np.asarray(original.data), None
            if original.tensor:
                source = tensors[original.tensor]
                predicted = _predict(source, original.scale, original.axis, data.dtype, data.shape)
            bits, difference = _difference(data, predicted)
            scale = b"" if original.scale is None else original.scale.astype("<f4").tobytes()
            row |= {"dtype": _dtype_text(data.dtype), "shape": data.shape, "axis": original.axis}
            row |= {"crc32": zlib.crc32(bits)}
        rows.append(row | {"scale": len(scale), "difference": len(difference)})
        pieces += [scale, difference]
    table = zlib.compress(json.dumps(rows, ensure_ascii=False).encode())
    return b"".join([_TABLE.pack(len(table)), table, *pieces])


def decode_originals(section: bytes) -> list[StoredOriginal]:
    """The rows of the section; one of `DAMAGE` where they make no sense."""
    (size,) = _TABLE.unpack_from(section.ljust(_TABLE.size, b"\0"))
    end = _TABLE.size + size
    found = []
    for row in json.loads(zlib.decompress(section[_TABLE.size : end])):
        start, middle = end, end + row["scale"]
        end = middle + row["difference"]
        if not start <= middle <= end <= len(section):
            raise ValueError("the section of originals is cut short")
        found.append(StoredOriginal(row, section[start:middle], section[middle:end]))
    return found


def _dtype_text(dtype: np.dtype) -> str:
    return "bf16" if dtype.name in ("bfloat16", "uint16") else dtype.newbyteorder("<").str


def _dtype(text: str) -> np.dtype:
    dtype = numpy_dtype("bf16") if text == "bf16" else np.dtype(text)
    if text != "bf16" and (dtype.kind not in "biufc" or dtype.itemsize not in (1, 2, 4, 8, 16)):
        raise ValueError(f"tensors of {text!r}")
    return dtype


def _part(dtype: np.dtype) -> np.dtype:
    """Of the unsigned integers that stand for elements; a complex number is two."""
    return _BIT_TYPES[dtype.itemsize // (2 if dtype.kind == "c" else 1)]


def _bits(array: np.ndarray) -> np.ndarray:
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.astype(flat.dtype.newbyteorder("<"), copy=False).view(_part(flat.dtype))


def _predict(
    tensor: np.ndarray, scale: np.ndarray | None, axis: int, dtype: np.dtype, shape: tuple[int, ...]
) -> np.ndarray:
    if tensor.dtype.kind != "f" or dtype.kind != "f":
        raise ValueError(f"{dtype} predicted from {tensor.dtype}")
    kind = np.promote_types(dtype, np.float32)
    whole, by = tensor.reshape(shape).astype(kind), np.ones((), kind)
    if scale is not None:
        by = np.where(np.abs(scale) > _TINY, scale, 1).astype(kind)
        by = by.reshape([-1 if index == axis else 1 for index in range(len(shape))])
    with np.errstate(all="ignore"):
        result = whole / by
        sound = (np.abs(whole) > _TINY) & (np.abs(result) > _TINY) & np.isfinite(result)
        return np.where(sound, result, 0).astype(dtype)


def _difference(data: np.ndarray, predicted: np.ndarray | None) -> tuple[np.ndarray, bytes]:
    """The bits of `data`; how they differ from the prediction: zigzag, the lowest bytes of all elements first."""
    bits = _bits(data)
    off = (bits if predicted is None else bits - _bits(predicted)).view(bits.dtype.str.replace("u", "i"))
    zigzag = ((off << 1) ^ (off >> (8 * bits.itemsize - 1))).view(np.uint8)
    return bits, zlib.compress(zigzag.reshape(-1, bits.itemsize).T.tobytes(), 1)


def _undo(difference: bytes, predicted: np.ndarray | None, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """The bits of what was stored, flat."""
    part, size = _part(dtype), dtype.itemsize
    for extent in shape:
        size *= extent
    if min(shape, default=0) < 0 or size > _MOST_ZEROS * (len(difference) + 1):
        raise ValueError(f"a tensor of shape {shape} in {len(difference)} bytes")
    planes = zlib.decompressobj().decompress(difference, size + 1)
    if len(planes) != size:
        raise ValueError("a difference of another size than its tensor")
    zigzag = np.frombuffer(planes, np.uint8).reshape(part.itemsize, -1).T.reshape(-1).view(part)
    off = (zigzag >> 1) ^ (~(zigzag & 1) + 1).astype(part)
    return off if predicted is None else off + _bits(predicted)
