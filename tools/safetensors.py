"""`.safetensors` files: named arrays, without code. Spec: huggingface/safetensors, README, "Format"."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

from edgec.graph.errors import UserError

_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_LENGTH = struct.Struct("<Q")  # of the table in JSON, which comes next; then the bytes of all arrays
_MAX_TABLE = 100 * 2**20


def write_safetensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """UserError E0505. Under another name first: who looks sees the old file or the new one."""
    table, offset = {}, 0
    for name, array in arrays.items():
        end = offset + array.nbytes
        table[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(table).encode()
    text += b" " * (-len(text) % 8)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(_LENGTH.pack(len(text)) + text)
            for array in arrays.values():
                file.write(np.ascontiguousarray(array).tobytes())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError("E0505", f"the weights cannot be written: {error.strerror}", where=str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file, mapped privately. UserError E0507 where it cannot be read or is none."""
    try:
        data = np.memmap(path, np.uint8, mode="c")
        (length,) = _LENGTH.unpack(data[: _LENGTH.size])
        if length > _MAX_TABLE:
            raise ValueError("its table is too long")
        start = _LENGTH.size + length
        table = json.loads(bytes(data[_LENGTH.size : start]))
        table.pop("__metadata__", None)
        return {name: _array(data[start:], entry) for name, entry in table.items()}
    except OSError as error:
        raise UserError("E0507", f"cannot read the weights: {error.strerror}", where=str(path)) from error
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError) as error:
        raise UserError("E0507", f"it is not a .safetensors file: {error}", where=str(path)) from error


def _array(data: np.ndarray, entry: dict) -> np.ndarray:
    begin, end = entry["data_offsets"]
    if not 0 <= begin <= end <= len(data):
        raise ValueError("an array lies outside of it")
    return data[begin:end].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
