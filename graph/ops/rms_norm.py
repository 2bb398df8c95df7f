"""Root mean square normalisation over the trailing axes (https://arxiv.org/abs/1910.07467)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder, Op, Tolerance
from edgec.graph.ops.norm_param_grad import NormParamGrad
from edgec.graph.ops.normalisation import check_normalised, per_row
from edgec.graph.ops.rms_norm_grad import RmsNormGrad
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class RmsNorm(Op):
    """x[A..., B...], optional gamma[B...] -> y = x * inv_rms * gamma, inv_rms[A...] = 1 / sqrt(mean(x^2) + epsilon);
    B begins at `axis`.
    """

    name: ClassVar[str] = "rms_norm"
    tolerance: ClassVar[Tolerance] = Tolerance.ACCUMULATION

    axis: int
    epsilon: float = 1e-5

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x = check_normalised(self, self.axis, self.epsilon, inputs, 2)
        return x, x.with_shape(x.shape[: self.axis])

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        x, *scale = inputs
        axes = tuple(range(self.axis, x.ndim))
        square = np.mean(x * x, axis=axes, keepdims=True, dtype=x.dtype)
        inv_rms = np.asarray(1 / np.sqrt(square + x.dtype.type(self.epsilon)), x.dtype)
        y = x * inv_rms
        return y * scale[0] if scale else y, inv_rms.reshape(x.shape[: self.axis])

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        """Inv_rms is for backward passes: a gradient that reaches it is not passed on."""
        (x, *scale), (_, inv_rms), (dy, _) = inputs, outputs, gradients
        if dy is None:
            return (None,) * len(inputs)
        dx = build.emit(RmsNormGrad(self.axis), dy, x, inv_rms, *scale) if build.wanted(x) else None
        if not scale:
            return (dx,)
        dgamma = None
        if build.wanted(scale[0]):
            no_mean = build.constant(np.array(0.0))
            rows = per_row(build, inv_rms, x.type)
            dgamma, _ = build.emit_all(NormParamGrad(tuple(range(self.axis))), dy, x, no_mean, rows)
        return dx, dgamma
