"""Axes in another order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import ChannelRule, GradientBuilder, Op, Tolerance, type_error
from edgec.graph.ops.checks import operands
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Transpose(Op):
    """Axis i of y is axis `perm[i]` of x."""

    name: ClassVar[str] = "transpose"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT

    perm: tuple[int, ...]

    @property
    def channel_rule(self) -> ChannelRule:
        return ChannelRule.PASS if len(self.perm) > 1 and self.perm[1] == 1 else ChannelRule.BLOCK

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = operands(self, inputs, 1)
        if sorted(self.perm) != list(range(x.rank)):
            hint = f"perm names each of 0 to {x.rank - 1} once" if x.rank else "a scalar has perm ()"
            raise type_error(self, f"perm {self.perm} does not permute the axes of rank {x.rank}", x, hint=hint)
        return (x.with_shape(tuple(x.shape[axis] for axis in self.perm)),)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        return (x.transpose(self.perm).copy(),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        (dy,) = gradients
        inverse = tuple(self.perm.index(axis) for axis in range(len(self.perm)))
        return (build.emit(Transpose(inverse), dy),)
