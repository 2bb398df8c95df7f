"""Matrix product of the last two axes, leading axes broadcast (ONNX `MatMul` and `Gemm` without bias, numpy's `@`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import ChannelRule, Cost, GradientBuilder, Op, Tolerance, type_error
from edgec.graph.ops.broadcasting import broadcast_shape, sum_to
from edgec.graph.ops.checks import operands, require_float, require_same_dtype
from edgec.graph.ops.reshape import Reshape
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class MatMul(Op):
    """a[...,M,K], b[...,K,N] -> y[...,M,N]; with `transpose_a` a is [...,K,M], with `transpose_b` b is [...,N,K]."""

    name: ClassVar[str] = "matmul"
    tolerance: ClassVar[Tolerance] = Tolerance.ACCUMULATION
    channel_rule: ClassVar[ChannelRule] = ChannelRule.MIX

    transpose_a: bool = False
    transpose_b: bool = False

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        a, b = operands(self, inputs, 2)
        require_same_dtype(self, a, b)
        require_float(self, a, b)
        if min(a.rank, b.rank) < 2:
            raise type_error(self, "operands must have rank 2 or more", a, b, hint="reshape a vector to [1,K] or [K,1]")
        m, inner_a = _turned(a.shape[-2:], self.transpose_a)
        inner_b, n = _turned(b.shape[-2:], self.transpose_b)
        if inner_a != inner_b:
            raise type_error(self, f"inner extents {inner_a} and {inner_b} differ", a, b)
        leading = broadcast_shape(self, a.with_shape(a.shape[:-2]), b.with_shape(b.shape[:-2]))
        return (a.with_shape((*leading, m, n)),)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        a, b = inputs
        left = np.swapaxes(a, -1, -2) if self.transpose_a else a
        right = np.swapaxes(b, -1, -2) if self.transpose_b else b
        if a.dtype.itemsize == 2:  # half floats: summed in f32, rounded once
            return ((left.astype(np.float32) @ right.astype(np.float32)).astype(a.dtype),)
        return (left @ right,)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        (a, b), (dy,) = inputs, gradients
        da = db = None
        if build.wanted(a):  # a = dy b^T, or its transpose b dy^T where a is stored transposed
            if self.transpose_a:
                da = build.emit(MatMul(self.transpose_b, True), b, dy)
            else:
                da = build.emit(MatMul(False, not self.transpose_b), dy, b)
            da = sum_to(build, da, a.type)
        if build.wanted(b):
            if b.type.rank == 2 and not self.transpose_a:
                # One product over the rows of the whole batch, where others would be one for each member, and a sum.
                a, dy = (
                    build.emit(Reshape((math.prod(v.type.shape[:-1]), v.type.shape[-1])), v) if v.type.rank > 2 else v
                    for v in (a, dy)
                )
            if self.transpose_b:
                db = build.emit(MatMul(True, self.transpose_a), dy, a)
            else:
                db = build.emit(MatMul(not self.transpose_a, False), a, dy)
            db = sum_to(build, db, b.type)
        return da, db

    def cost(self, inputs: tuple[TensorType, ...], outputs: tuple[TensorType, ...]) -> Cost:
        a, (y,) = inputs[0], outputs
        inner = a.shape[-2] if self.transpose_a else a.shape[-1]
        return Cost(math.prod(y.shape) * inner, sum(t.bytes for t in (*inputs, *outputs)))


def _turned(pair: tuple[int, ...], transpose: bool) -> tuple[int, int]:
    first, second = pair
    return (second, first) if transpose else (first, second)
