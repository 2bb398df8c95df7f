"""Position of the smallest along one axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.arg_reduction import ArgReduction
from edgec.graph.ops.base import Tolerance


@dataclass(frozen=True)
class ArgMin(ArgReduction):
    """x -> i64 position of the smallest element along `axis`; of equal ones the first, or the `last`. NaN wins."""

    name: ClassVar[str] = "arg_min"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT
    no_gradient: ClassVar[str | None] = "a position does not change with the values"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        return (self.position(np.argmin, *inputs),)
