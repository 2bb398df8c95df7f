"""What the scatters have in common: where gradients of what is replaced, and of what replaces it, come from."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgec.graph.ops.base import GradientBuilder, Op
from edgec.graph.ops.broadcast_to import BroadcastTo
from edgec.graph.ops.cast import Cast
from edgec.graph.ops.div import Div
from edgec.graph.ops.equal import Equal
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.where import Where

if TYPE_CHECKING:
    from edgec.graph.ir import Value


class Scatter(Op):
    """x, indices, updates -> x with updates written or combined at indices: `reduction` is none, add, mul, min, max."""

    reduction: str  # a field of each subclass, behind its own

    @abstractmethod
    def picked(self, build: GradientBuilder, x: Value, indices: Value) -> Value:
        """What stands in `x` where updates went: one element for each of theirs."""

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        if not (build.wanted(inputs[0]) or build.wanted(inputs[2])):
            return None, None, None
        form = {"none": self._replaced, "add": self._added, "mul": self._multiplied}.get(self.reduction, self._compared)
        dx, dupdates = form(build, *inputs, *outputs, *gradients)
        return dx if build.wanted(inputs[0]) else None, None, dupdates if build.wanted(inputs[2]) else None

    def _replaced(
        self, build: GradientBuilder, x: Value, indices: Value, updates: Value, y: Value, dy: Value
    ) -> tuple[Value, Value]:
        """Of several updates of one element the last counts: the one whose number is found there afterwards."""
        zero = build.constant(np.array(0.0))
        dx = build.emit(self, dy, indices, build.emit(BroadcastTo(updates.type.shape), zero))
        numbers = build.constant(np.arange(updates.type.size, dtype=np.int32).reshape(updates.type.shape))
        nobody = build.emit(BroadcastTo(x.type.shape), build.constant(np.array(-1, np.int32)))
        last = self.picked(build, build.emit(self, nobody, indices, numbers), indices)
        passed = build.emit(Where(), build.emit(Equal(), last, numbers), self.picked(build, dy, indices), zero)
        return dx, passed

    def _added(
        self, build: GradientBuilder, x: Value, indices: Value, updates: Value, y: Value, dy: Value
    ) -> tuple[Value, Value]:
        return dy, self.picked(build, dy, indices)

    def _multiplied(
        self, build: GradientBuilder, x: Value, indices: Value, updates: Value, y: Value, dy: Value
    ) -> tuple[Value, Value]:
        """dy times the product of all other factors: without one of 0, the product of the rest or 0."""
        zero, one = build.constant(np.array(0.0)), build.constant(np.array(1.0))

        def split(factor: Value) -> tuple[Value, Value]:
            """Where it is 0, as 1 or 0, and 1 in place of 0."""
            is_zero = build.emit(Equal(), factor, zero)
            return build.emit(Where(), is_zero, one, zero), build.emit(Where(), is_zero, one, factor)

        (x_zero, x_rest), (u_zero, u_rest) = split(x), split(updates)
        zeros = build.emit(replace(self, reduction="add"), x_zero, indices, u_zero)
        product = build.emit(self, x_rest, indices, u_rest)
        through = build.emit(Mul(), dy, product)

        def part(through: Value, zeros: Value, is_zero: Value, rest: Value) -> Value:
            alone = build.emit(Equal(), zeros, is_zero)  # no zero, or no other one
            return build.emit(Where(), alone, build.emit(Div(), through, rest), zero)

        dx = part(through, zeros, x_zero, x_rest)
        at = (self.picked(build, value, indices) for value in (through, zeros))
        return dx, part(*at, u_zero, u_rest)

    def _compared(
        self, build: GradientBuilder, x: Value, indices: Value, updates: Value, y: Value, dy: Value
    ) -> tuple[Value, Value]:
        """Equal extrema share the gradient, as in torch."""
        kind = x.type.dtype.value

        def taken(value: Value, result: Value) -> Value:
            return build.emit(Cast(kind), build.emit(Equal(), value, result))

        from_x, from_updates = taken(x, y), taken(updates, self.picked(build, y, indices))
        count = build.emit(replace(self, reduction="add"), from_x, indices, from_updates)
        # Where a NaN won, nothing equals it.
        share = build.emit(Div(), dy, count)
        dx = build.emit(Where(), build.emit(Equal(), x, y), share, build.constant(np.array(0.0)))
        return dx, build.emit(Mul(), self.picked(build, share, indices), from_updates)
