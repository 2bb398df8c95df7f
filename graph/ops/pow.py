"""Power."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import Tolerance
from edgec.graph.ops.elementwise import Binary


@dataclass(frozen=True)
class Pow(Binary):
    """y = a to the power b, as C's pow; of integers the product, or 0 for a negative b unless |a| is 1."""

    name: ClassVar[str] = "pow"
    tolerance: ClassVar[Tolerance] = Tolerance.ACCUMULATION
    no_gradient: ClassVar[str | None] = "its gradient is not written yet"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        a, b = inputs
        if a.dtype.kind in "iu":
            return (_integer_power(*np.broadcast_arrays(a, b)),)
        return (np.asarray(np.power(a, b)),)


def _integer_power(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    y = np.power(a, np.maximum(b, 0))
    odd = np.where(b % 2 == 1, a, 1)
    return np.where(b < 0, np.where(a == 1, 1, np.where(a == -1, odd, 0)), y).astype(a.dtype)
