"""Tensors joined along one axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder, Op, Tolerance, type_error
from edgec.graph.ops.checks import require_axis, require_same_dtype
from edgec.graph.ops.slice import Slice
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Concat(Op):
    """x0, x1, ... one after the other along `axis`; all other extents are equal."""

    name: ClassVar[str] = "concat"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT

    axis: int

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        if not inputs:
            raise type_error(self, "takes at least one operand")
        require_same_dtype(self, *inputs)
        first = inputs[0]
        require_axis(self, self.axis, first)
        for x in inputs[1:]:
            if self._others(x) != self._others(first):
                hint = f"all extents but that of axis {self.axis} must be equal"
                raise type_error(self, f"{x} does not continue {first}", *inputs, hint=hint)
        joined = sum(x.shape[self.axis] for x in inputs)
        return (first.with_shape((*first.shape[: self.axis], joined, *first.shape[self.axis + 1 :])),)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.concatenate(inputs, axis=self.axis),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        (dy,) = gradients
        result: list[Value | None] = []
        start = 0
        for x in inputs:
            end = start + x.type.shape[self.axis]
            result.append(build.emit(Slice.along(self.axis, start, end, dy.type), dy) if build.wanted(x) else None)
            start = end
        return tuple(result)

    def _others(self, x: TensorType) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
        return x.rank, x.shape[: self.axis], x.shape[self.axis + 1 :]
