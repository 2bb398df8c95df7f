"""Sign of a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import Tolerance
from edgec.graph.ops.elementwise import NumberUnary


@dataclass(frozen=True)
class Sign(NumberUnary):
    """y = -1, 0 or 1, of any number; NaN for NaN."""

    name: ClassVar[str] = "sign"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT
    no_gradient: ClassVar[str | None] = "it is constant between steps"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.sign(x)),)
