"""What ops with run-time indices have in common: negative indices count from the end, and none reads or writes outside.

An index that is still out of range is moved to the nearest end: a model with a wrong index gives a wrong number, never
a crash of the device.
"""

from __future__ import annotations

import numpy as np

from edgec.graph.ops.base import Op, type_error
from edgec.graph.types import DType, TensorType

REDUCTIONS = ("none", "add", "mul", "min", "max")


def require_indices(op: Op, indices: TensorType, *inputs: TensorType) -> None:
    if indices.dtype not in (DType.I32, DType.I64):
        raise type_error(op, f"indices are i32 or i64, not {indices.dtype.value}", *inputs)


def require_reduction(op: Op, reduction: str, *inputs: TensorType) -> None:
    if reduction not in REDUCTIONS:
        raise type_error(op, f"reduction={reduction!r} is none of {', '.join(REDUCTIONS)}", *inputs)


def require_elements(op: Op, x: TensorType, count: int, *inputs: TensorType) -> None:
    """Something must be there to be read, if anything is read."""
    if count and not x.size:
        raise type_error(op, f"reads from {x}, which has no elements", *inputs)


def wrapped(indices: np.ndarray, extent: int) -> np.ndarray:
    """`indices` into an axis of `extent`, all of them inside."""
    return np.clip(np.where(indices < 0, indices + extent, indices), 0, extent - 1)


def apply_updates(y: np.ndarray, where: tuple[np.ndarray, ...], updates: np.ndarray, reduction: str) -> None:
    """Write or combine `updates` at `where` of `y`, in order: the last of several wins."""
    match reduction:
        case "add":
            np.add.at(y, where, updates)
        case "mul":
            np.multiply.at(y, where, updates)
        case "min":
            np.minimum.at(y, where, updates)
        case "max":
            np.maximum.at(y, where, updates)
        case _:
            y[where] = updates
