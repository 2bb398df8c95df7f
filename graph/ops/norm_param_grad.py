"""Gradients of the scale and the shift of a normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import Op, Tolerance, type_error
from edgec.graph.ops.broadcasting import broadcast_shape
from edgec.graph.ops.checks import operands, require_axes, require_float, require_same_dtype
from edgec.graph.types import TensorType


@dataclass(frozen=True)
class NormParamGrad(Op):
    """dy, x, mean, inv_std -> dgamma = sum of dy * (x - mean) * inv_std and dbeta = sum of dy, over `axes`, which are
    dropped. dy and x have one shape, to which mean and inv_std broadcast.
    """

    name: ClassVar[str] = "norm_param_grad"
    tolerance: ClassVar[Tolerance] = Tolerance.ACCUMULATION
    no_gradient: ClassVar[str | None] = "gradients of gradients are not derived"

    axes: tuple[int, ...]

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        dy, x, mean, inv_std = operands(self, inputs, 4)
        require_same_dtype(self, *inputs)
        require_float(self, *inputs)
        require_axes(self, self.axes, x)
        if dy.shape != x.shape or broadcast_shape(self, x, mean, inv_std) != x.shape:
            raise type_error(self, "dy must have the shape of x, and the statistics broadcast to it", *inputs)
        kept = x.with_shape(tuple(n for axis, n in enumerate(x.shape) if axis not in self.axes))
        return kept, kept

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        dy, x, mean, inv_std = inputs
        dgamma = np.sum(dy * ((x - mean) * inv_std), axis=self.axes, dtype=x.dtype)
        return np.asarray(dgamma), np.asarray(np.sum(dy, axis=self.axes, dtype=x.dtype))
