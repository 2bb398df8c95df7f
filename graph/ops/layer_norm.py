"""Layer normalisation over the trailing axes (https://arxiv.org/abs/1607.06450), with what its gradient needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder, Op, Tolerance
from edgec.graph.ops.layer_norm_grad import LayerNormGrad
from edgec.graph.ops.norm_param_grad import NormParamGrad
from edgec.graph.ops.normalisation import check_normalised, per_row
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class LayerNorm(Op):
    """x[A..., B...], optional gamma[B...], optional beta[B...] -> y = (x - mean) * inv_std * gamma + beta, mean[A...],
    inv_std[A...] = 1 / sqrt(variance + epsilon); B begins at `axis`. Instance and group normalisation are this on
    x[N, G, rest] without gamma and beta.
    """

    name: ClassVar[str] = "layer_norm"
    tolerance: ClassVar[Tolerance] = Tolerance.ACCUMULATION

    axis: int
    epsilon: float = 1e-5

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x = check_normalised(self, self.axis, self.epsilon, inputs, 3)
        row = x.with_shape(x.shape[: self.axis])
        return x, row, row

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        x, *scale_and_shift = inputs
        axes = tuple(range(self.axis, x.ndim))
        mean = x.mean(axis=axes, keepdims=True, dtype=x.dtype)
        centred = x - mean
        variance = np.mean(centred * centred, axis=axes, keepdims=True, dtype=x.dtype)
        inv_std = np.asarray(1 / np.sqrt(variance + x.dtype.type(self.epsilon)), x.dtype)
        y = centred * inv_std
        for index, part in enumerate(scale_and_shift):
            y = y * part if index == 0 else y + part
        rows = x.shape[: self.axis]
        return y, mean.reshape(rows), inv_std.reshape(rows)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        """Mean and inv_std are for backward passes: gradients that reach them are not passed on."""
        (x, *parts), (_, mean, inv_std), (dy, *_) = inputs, outputs, gradients
        if dy is None:
            return (None,) * len(inputs)
        result: list[Value | None] = [None] * len(inputs)
        if build.wanted(x):
            result[0] = build.emit(LayerNormGrad(self.axis), dy, x, mean, inv_std, *parts[:1])
        if any(map(build.wanted, parts)):
            statistics = (per_row(build, row, x.type) for row in (mean, inv_std))
            found = build.emit_all(NormParamGrad(tuple(range(self.axis))), dy, x, *statistics)
            for slot, (part, gradient) in enumerate(zip(parts, found, strict=False), 1):
                result[slot] = gradient if build.wanted(part) else None
        return tuple(result)
