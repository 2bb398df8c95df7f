"""Batch normalisation by the statistics of the batch itself (https://arxiv.org/abs/1502.03167)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.add import Add
from edgec.graph.ops.base import ChannelRule, GradientBuilder, Op, Tolerance, type_error
from edgec.graph.ops.checks import operands, require_float, require_same_dtype
from edgec.graph.ops.div import Div
from edgec.graph.ops.moments import Moments
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.norm_param_grad import NormParamGrad
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.sqrt import Sqrt
from edgec.graph.ops.sub import Sub
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class BatchNormTrain(Op):
    """x[N,C,...], gamma[C], beta[C][, weights[N,1,...]] -> y = (x - mean) / sqrt(variance + epsilon) * gamma + beta,
    mean[C], variance[C] of x over all axes but the channels. The variance is divided by the number of elements.

    `weights` say how much each of the N counts, in all 1; those of weight 0 must have no gradient either.
    """

    name: ClassVar[str] = "batch_norm_train"
    tolerance: ClassVar[Tolerance] = Tolerance.ACCUMULATION
    channel_rule: ClassVar[ChannelRule] = ChannelRule.PASS

    epsilon: float = 1e-5

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, gamma, beta, *weights = operands(self, inputs, 4 if len(inputs) == 4 else 3)
        require_same_dtype(self, *inputs)
        require_float(self, *inputs)
        if x.rank < 2:
            raise type_error(self, "x must have rank 2 or more: axis 1 holds the channels", *inputs)
        if not gamma.shape == beta.shape == (x.shape[1],):
            raise type_error(self, f"gamma and beta must have shape [{x.shape[1]}]", *inputs)
        if x.size == 0 or self.epsilon < 0:
            raise type_error(self, "there must be elements, and epsilon must not be negative", *inputs)
        if any(kind.shape != (x.shape[0],) + (1,) * (x.rank - 1) for kind in weights):
            raise type_error(self, f"weights must have shape [{x.shape[0]}] and ones", *inputs)
        return x, gamma, gamma

    def axes(self, x: TensorType) -> tuple[int, ...]:
        return tuple(axis for axis in range(x.rank) if axis != 1)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        x, gamma, beta, *weights = inputs
        per_channel = (x.shape[1],) + (1,) * (x.ndim - 2)
        mean, variance = Moments(tuple(axis for axis in range(x.ndim) if axis != 1)).reference(x, *weights)
        inv_std = np.asarray(1 / np.sqrt(variance + x.dtype.type(self.epsilon)), x.dtype)
        gamma, beta, centre, inv_std = (part.reshape(per_channel) for part in (gamma, beta, mean, inv_std))
        return (x - centre) * (inv_std * gamma) + beta, mean, variance

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        """dx = gamma * inv_std * (dy - (dbeta + (x - mean) * inv_std * dgamma) / elements), element by element; with
        weights, times those instead of 1/N.

        Mean and variance are for backward passes and running statistics: gradients that reach them are not passed on.
        """
        (x, gamma, beta, *weights), (_, mean, variance), (dy, *_) = inputs, outputs, gradients
        if dy is None:
            return (None,) * len(inputs)
        per_channel = (x.type.shape[1],) + (1,) * (x.type.rank - 2)

        def spread(vector: Value) -> Value:
            return build.emit(Reshape(per_channel), vector)

        inv_std = inverse_deviation(build, variance, self.epsilon)
        centre = spread(mean)
        dgamma, dbeta = build.emit_all(NormParamGrad(self.axes(x.type)), dy, x, centre, spread(inv_std))
        dx = None
        if build.wanted(x):
            shares = x.type.size // gamma.type.size // (x.type.shape[0] if weights else 1)
            each = build.constant(np.array(1 / shares))
            slope = build.emit(Mul(), build.emit(Mul(), inv_std, dgamma), each)
            along = build.emit(Mul(), build.emit(Sub(), x, centre), spread(slope))
            level = spread(build.emit(Mul(), dbeta, each))
            if weights:
                rest = build.emit(Sub(), dy, build.emit(Mul(), build.emit(Add(), along, level), weights[0]))
            else:
                rest = build.emit(Sub(), build.emit(Sub(), dy, level), along)
            dx = build.emit(Mul(), rest, spread(build.emit(Mul(), gamma, inv_std)))
        found = (dx, dgamma if build.wanted(gamma) else None, dbeta if build.wanted(beta) else None)
        return (*found, None) if weights else found


def inverse_deviation(build: GradientBuilder, variance: Value, epsilon: float) -> Value:
    """1 / sqrt(variance + epsilon)."""
    shifted = build.emit(Add(), variance, build.constant(np.array(epsilon)))
    return build.emit(Div(), build.constant(np.array(1.0)), build.emit(Sqrt(), shifted))
