"""Names of element types ("f32", "i64", ...), their numbers in an artifact, and numpy's.

numpy has no bfloat16 of its own: arrays of it are `ml_dtypes.bfloat16` where the program has imported that library, and
plain `uint16` bits elsewhere. `uint16` means nothing else here.
"""

from __future__ import annotations

import numpy as np

DTYPES = ("f16", "bf16", "f32", "f64", "i8", "u8", "i32", "i64", "bool")  # by number

_NUMPY = {
    "f16": "<f2",
    "f32": "<f4",
    "f64": "<f8",
    "i8": "|i1",
    "u8": "|u1",
    "i32": "<i4",
    "i64": "<i8",
    "bool": "|b1",
}
_NAMES = {np.dtype(code).name: name for name, code in _NUMPY.items()} | {"bfloat16": "bf16", "uint16": "bf16"}


def numpy_dtype(name: str) -> np.dtype:
    """The numpy type of "f32" and so on, little-endian; KeyError for an unknown name."""
    if name != "bf16":
        return np.dtype(_NUMPY[name])
    try:
        return np.dtype("bfloat16")
    except TypeError:
        return np.dtype("<u2")


def dtype_name(dtype: np.dtype) -> str:
    """ "f32" and so on for a numpy type; KeyError where an artifact has none for it."""
    return _NAMES[np.dtype(dtype).name]


def widened(array: np.ndarray) -> np.ndarray:
    """A bf16 as the f32 of the same value, which is exact; anything else as it is."""
    if array.dtype.name not in ("bfloat16", "uint16"):
        return array
    return np.asarray(array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def narrowed(array: np.ndarray) -> np.ndarray:
    """The bf16 bits of an f32 that `widened` made; ValueError where digits would be lost."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32).reshape(array.shape)
    if (bits & 0xFFFF).any():
        raise ValueError("not all of these numbers have a bfloat16")
    return np.asarray(bits >> 16).astype(np.uint16)
