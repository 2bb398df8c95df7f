"""Rounding up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import Tolerance
from edgec.graph.ops.elementwise import Unary


@dataclass(frozen=True)
class Ceil(Unary):
    """y = the smallest whole number that is not below x."""

    name: ClassVar[str] = "ceil"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT
    no_gradient: ClassVar[str | None] = "it is constant between steps"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.ceil(x)),)
