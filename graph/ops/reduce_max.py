"""Maximum over axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import Tolerance, type_error
from edgec.graph.ops.reduction import Reduction
from edgec.graph.types import TensorType


@dataclass(frozen=True)
class ReduceMax(Reduction):
    """y = largest element of x over `axes`; NaN if one of them is."""

    name: ClassVar[str] = "reduce_max"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT
    no_gradient: ClassVar[str | None] = "no op of the graph finds where the maximum stood"

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        outputs = super().infer(*inputs)
        if any(inputs[0].shape[axis] == 0 for axis in self.axes):
            raise type_error(self, f"the maximum over axes {self.axes} is one of no elements", *inputs)
        return outputs

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (np.asarray(np.max(x, axis=self.axes, keepdims=self.keepdims)),)
