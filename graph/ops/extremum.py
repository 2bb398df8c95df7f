"""What `maximum` and `minimum` have in common: who gets the gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgec.graph.ops.base import GradientBuilder
from edgec.graph.ops.broadcasting import sum_to
from edgec.graph.ops.elementwise import Binary
from edgec.graph.ops.equal import Equal
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.where import Where

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Extremum(Binary):
    """One of a and b, broadcast. The gradient goes to the one that was taken; equal ones share it, as in torch."""

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        (a, b), (y,), (dy,) = inputs, outputs, gradients
        if not (build.wanted(a) or build.wanted(b)):
            return None, None
        none = build.constant(np.array(0.0))
        half = build.emit(Mul(), dy, build.constant(np.array(0.5)))
        shared = build.emit(Where(), build.emit(Equal(), a, b), half, dy)

        def part(x: Value) -> Value | None:
            if not build.wanted(x):
                return None
            return sum_to(build, build.emit(Where(), build.emit(Equal(), x, y), shared, none), x.type)

        return part(a), part(b)
