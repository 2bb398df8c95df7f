"""What reductions have in common: axes, their type rule, and how a gradient spreads back over them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgec.graph.ops.base import ChannelRule, GradientBuilder, Op
from edgec.graph.ops.broadcast_to import BroadcastTo
from edgec.graph.ops.checks import operands, require_axes, require_number
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.transpose import Transpose
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Reduction(Op):
    """x -> y without the extents of `axes`, which stand in ascending order; with `keepdims` they stay as 1."""

    axes: tuple[int, ...]
    keepdims: bool = False

    @property
    def channel_rule(self) -> ChannelRule:
        """Channels stay at axis 1 unless they, or an axis before them, are reduced away."""
        stays = 1 not in self.axes and (self.keepdims or 0 not in self.axes)
        return ChannelRule.PASS if stays else ChannelRule.BLOCK

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = operands(self, inputs, 1)
        require_number(self, x)
        require_axes(self, self.axes, x)
        return (x.with_shape(self.kept_shape(x) if self.keepdims else self.dropped_shape(x)),)

    def kept_shape(self, x: TensorType) -> tuple[int, ...]:
        return tuple(1 if i in self.axes else n for i, n in enumerate(x.shape))

    def dropped_shape(self, x: TensorType) -> tuple[int, ...]:
        return tuple(n for i, n in enumerate(x.shape) if i not in self.axes)

    def spread(self, build: GradientBuilder, dy: Value, x: TensorType) -> Value:
        """`dy`, repeated along the reduced axes of `x`."""
        if dy.type.shape != self.kept_shape(x):
            dy = build.emit(Reshape(self.kept_shape(x)), dy)
        return dy if dy.type == x else build.emit(BroadcastTo(x.shape), dy)

    def rows(self, build: GradientBuilder, x: Value) -> tuple[Value, Callable[[Value], Value]]:
        """`x` as [results, elements of each], and what takes a gradient of that shape back to the shape of `x`."""
        rank = x.type.rank
        perm = (*(axis for axis in range(rank) if axis not in self.axes), *self.axes)
        moves = perm != tuple(range(rank))
        moved = build.emit(Transpose(perm), x) if moves else x
        count = math.prod(x.type.shape[axis] for axis in self.axes)
        results = math.prod(self.dropped_shape(x.type))

        def back(gradient: Value) -> Value:
            gradient = build.emit(Reshape(moved.type.shape), gradient)
            return build.emit(Transpose(tuple(map(perm.index, range(rank)))), gradient) if moves else gradient

        return build.emit(Reshape((results, count)), moved), back
