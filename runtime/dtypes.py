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
