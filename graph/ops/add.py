"""Addition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder
from edgec.graph.ops.broadcasting import sum_to
from edgec.graph.ops.elementwise import Binary

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Add(Binary):
    """y = a + b, broadcast."""

    name: ClassVar[str] = "add"

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        a, b = inputs
        return (np.asarray(a + b),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        (dy,) = gradients
        return tuple(sum_to(build, dy, value.type) if build.wanted(value) else None for value in inputs)
