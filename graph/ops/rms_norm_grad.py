"""Gradient of root mean square normalisation's input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import Op, Tolerance
from edgec.graph.ops.normalisation import check_normalised_grad
from edgec.graph.types import TensorType


@dataclass(frozen=True)
class RmsNormGrad(Op):
    """dy[A..., B...], x[A..., B...], inv_rms[A...], optional gamma[B...] -> dx = inv_rms * (g - n * mean of g * n),
    with n = x * inv_rms and g = dy * gamma; the mean is over B, which begins at `axis`.
    """

    name: ClassVar[str] = "rms_norm_grad"
    tolerance: ClassVar[Tolerance] = Tolerance.ACCUMULATION
    no_gradient: ClassVar[str | None] = "gradients of gradients are not derived"

    axis: int

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        return (check_normalised_grad(self, self.axis, inputs, 1),)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        dy, x, inv_rms, *scale = inputs
        axes = tuple(range(self.axis, x.ndim))
        inv_rms = inv_rms.reshape(inv_rms.shape + (1,) * len(axes))
        normal = x * inv_rms
        g = dy * scale[0] if scale else dy
        return (inv_rms * (g - normal * np.mean(g * normal, axis=axes, keepdims=True, dtype=x.dtype)),)
