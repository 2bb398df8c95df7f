"""Batch normalisation with given statistics (inference mode; in training: frozen statistics)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.add import Add
from edgec.graph.ops.base import ChannelRule, GradientBuilder, Op, type_error
from edgec.graph.ops.checks import operands, require_float, require_same_dtype
from edgec.graph.ops.div import Div
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class BatchNorm(Op):
    """x[N,C,...], gamma, beta, mean, variance (all [C]) -> y = (x - mean) / sqrt(variance + epsilon) * gamma + beta.

    `momentum` is for training by batch statistics: the part of them in new running statistics (torch's momentum).
    """

    name: ClassVar[str] = "batch_norm"
    channel_rule: ClassVar[ChannelRule] = ChannelRule.PASS

    epsilon: float = 1e-5
    momentum: float = 0.1

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, *parts = operands(self, inputs, 5)
        require_same_dtype(self, *inputs)
        require_float(self, *inputs)
        if x.rank < 2:
            raise type_error(self, "x must have rank 2 or more: axis 1 holds the channels", *inputs)
        if any(part.shape != (x.shape[1],) for part in parts):
            raise type_error(self, f"gamma, beta, mean and variance must have shape [{x.shape[1]}]", *inputs)
        if self.epsilon < 0:
            raise type_error(self, f"epsilon={self.epsilon} must not be negative", *inputs)
        return (x,)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        x = inputs[0]
        per_channel = (1, x.shape[1]) + (1,) * (x.ndim - 2)
        gamma, beta, mean, variance = (part.reshape(per_channel) for part in inputs[1:])
        scale = gamma / np.sqrt(variance + x.dtype.type(self.epsilon))
        return ((x - mean) * scale + beta,)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        (x, gamma, beta, mean, variance), (dy,) = inputs, gradients
        channels = gamma.type.shape
        zeros, ones = build.constant(np.zeros(channels, np.float32)), build.constant(np.ones(channels, np.float32))
        axes = tuple(axis for axis in range(x.type.rank) if axis != 1)
        dx = dgamma = dbeta = dmean = dvariance = to_x = to_gamma = None
        if build.wanted(x) or build.wanted(mean):  # dy * gamma / sqrt(variance + epsilon)
            to_x = build.emit(self, dy, gamma, zeros, zeros, variance)
        if build.wanted(gamma) or build.wanted(variance):
            normalised = build.emit(self, x, ones, zeros, mean, variance)
            to_gamma = build.emit(ReduceSum(axes), build.emit(Mul(), dy, normalised))
        if build.wanted(x):
            dx = to_x
        if build.wanted(gamma):
            dgamma = to_gamma
        if build.wanted(beta):
            dbeta = build.emit(ReduceSum(axes), dy)
        if build.wanted(mean):
            minus = build.constant(np.full(channels, -1.0, np.float32))
            dmean = build.emit(Mul(), build.emit(ReduceSum(axes), to_x), minus)
        if build.wanted(variance):
            shifted = build.emit(Add(), variance, build.constant(np.full(channels, self.epsilon, np.float32)))
            half = build.constant(np.full(channels, -0.5, np.float32))
            dvariance = build.emit(Mul(), half, build.emit(Div(), build.emit(Mul(), gamma, to_gamma), shifted))
        return dx, dgamma, dbeta, dmean, dvariance
