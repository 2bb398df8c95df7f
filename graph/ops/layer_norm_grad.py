"""Gradient of layer normalisation's input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.graph.ops.base import Op, Tolerance
from edgec.graph.ops.normalisation import check_normalised_grad
from edgec.graph.types import TensorType


@dataclass(frozen=True)
class LayerNormGrad(Op):
    """dy[A..., B...], x[A..., B...], mean[A...], inv_std[A...], optional gamma[B...] -> dx = inv_std * (g - mean of g -
    n * mean of g * n), with n the normalised x and g = dy * gamma; means over B, which begins at `axis`.
    """

    name: ClassVar[str] = "layer_norm_grad"
    tolerance: ClassVar[Tolerance] = Tolerance.ACCUMULATION
    no_gradient: ClassVar[str | None] = "gradients of gradients are not derived"

    axis: int

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        return (check_normalised_grad(self, self.axis, inputs, 2),)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        dy, x, *rest = inputs
        axes = tuple(range(self.axis, x.ndim))
        mean, inv_std = (row.reshape(row.shape + (1,) * len(axes)) for row in rest[:2])
        normal = (x - mean) * inv_std
        g = dy * rest[2] if len(rest) > 2 else dy
        along = np.mean(g * normal, axis=axes, keepdims=True, dtype=x.dtype)
        return (inv_std * (g - np.mean(g, axis=axes, keepdims=True, dtype=x.dtype) - normal * along),)
