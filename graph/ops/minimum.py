"""The smaller of two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder, Tolerance
from edgec.graph.ops.broadcasting import sum_to
from edgec.graph.ops.elementwise import Binary
from edgec.graph.ops.equal import Equal
from edgec.graph.ops.where import Where

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Minimum(Binary):
    """y = the smaller of a and b, broadcast; NaN if one of them is. Where they are equal, the gradient goes to a."""

    name: ClassVar[str] = "minimum"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        a, b = inputs
        return (np.asarray(np.minimum(a, b)),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        a, b = inputs
        (y,) = outputs
        (dy,) = gradients
        chosen = build.emit(Equal(), a, y)
        none = build.constant(np.array(0, np.float32))
        da = sum_to(build, build.emit(Where(), chosen, dy, none), a.type) if build.wanted(a) else None
        db = sum_to(build, build.emit(Where(), chosen, none, dy), b.type) if build.wanted(b) else None
        return da, db
