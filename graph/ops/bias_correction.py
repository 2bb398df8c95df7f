"""What an exponential average that began at 0 has to be divided by after so many steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.elementwise import Unary


@dataclass(frozen=True)
class BiasCorrection(Unary):
    """steps t -> 1 - beta ** t, in full precision also where beta is close to 1. For 0 < beta < 1.

    Taken as 1 - beta ** t in f32, the correction for beta = 0.999 would be wrong in the fifth digit after one step.
    """

    name: ClassVar[str] = "bias_correction"
    no_gradient: ClassVar[str | None] = "an optimizer's step is not differentiated"

    beta: float

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (t,) = inputs
        return (np.asarray(-np.expm1(t.astype(np.float64) * math.log(self.beta))).astype(t.dtype),)
