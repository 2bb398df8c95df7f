"""Rounding down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import Tolerance
from edgec.graph.ops.elementwise import Unary


@dataclass(frozen=True)
class Floor(Unary):
    """y = the largest whole number that is not above x."""

    name: ClassVar[str] = "floor"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT
    no_gradient: ClassVar[str | None] = "it is constant between steps"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.floor(x)),)
