"""Conjunction of bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import Tolerance
from edgec.graph.ops.elementwise import BitsBinary


@dataclass(frozen=True)
class BitAnd(BitsBinary):
    """y = a and b, of bool; bit by bit of integers."""

    name: ClassVar[str] = "bit_and"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT
    no_gradient: ClassVar[str | None] = "bits have none"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        a, b = inputs
        return (np.asarray(a & b),)
