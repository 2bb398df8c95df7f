"""A strided box out of a tensor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import GradientBuilder, Op, Tolerance, type_error
from edgec.graph.ops.checks import operands, require_per_axis
from edgec.graph.ops.pad import Pad
from edgec.graph.ops.reshape import Reshape
from edgec.graph.types import TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value


@dataclass(frozen=True)
class Slice(Op):
    """y = x[starts[0]:ends[0]:steps[0], ...] with 0 <= start <= end <= extent and step > 0 on every axis."""

    name: ClassVar[str] = "slice"
    tolerance: ClassVar[Tolerance] = Tolerance.EXACT

    starts: tuple[int, ...]
    ends: tuple[int, ...]
    steps: tuple[int, ...]

    @staticmethod
    def along(axis: int, start: int, end: int, x: TensorType) -> Slice:
        """The slice of `x` that cuts one axis and leaves the others whole."""
        starts, ends = [0] * x.rank, list(x.shape)
        starts[axis], ends[axis] = start, end
        return Slice(tuple(starts), tuple(ends), (1,) * x.rank)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = operands(self, inputs, 1)
        require_per_axis(self, "starts", self.starts, x)
        require_per_axis(self, "ends", self.ends, x)
        require_per_axis(self, "steps", self.steps, x)
        for axis, (start, end, step) in enumerate(self._bounds()):
            extent = x.shape[axis]
            if step < 1:
                raise type_error(self, f"step {step} of axis {axis} is not positive", x)
            if not 0 <= start <= end <= extent:
                hint = f"bounds are normalised: 0 <= start <= end <= {extent}"
                raise type_error(self, f"{start}:{end} does not lie within axis {axis}", x, hint=hint)
        return (x.with_shape(tuple(len(range(*bounds)) for bounds in self._bounds())),)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        (x,) = inputs
        box = tuple(slice(*bounds) for bounds in self._bounds())
        return (np.array(x[box]),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        """Each element goes back to where it came from, with zeros around it and, for steps, between."""
        (x,) = inputs
        (dy,) = gradients
        for axis, step in enumerate(self.steps):
            if step > 1:
                room = x.type.shape[axis] - self.starts[axis]
                dy = self._dilate(build, dy, axis, min(dy.type.shape[axis] * step, room))
        extents = zip(x.type.shape, self.starts, dy.type.shape, strict=True)
        high = tuple(whole - start - part for whole, start, part in extents)
        return (dy if dy.type == x.type else build.emit(Pad(self.starts, high), dy),)

    def _bounds(self) -> Iterator[tuple[int, int, int]]:
        return zip(self.starts, self.ends, self.steps, strict=True)

    def _dilate(self, build: GradientBuilder, dy: Value, axis: int, extent: int) -> Value:
        """`step - 1` zeros after each element along `axis`, cut to `extent`."""
        shape, step = dy.type.shape, self.steps[axis]
        before, after = shape[: axis + 1], shape[axis + 1 :]
        split = build.emit(Reshape((*before, 1, *after)), dy)
        low = (0,) * split.type.rank
        padded = build.emit(Pad(low, (*low[: axis + 1], step - 1, *low[axis + 2 :])), split)
        dilated = build.emit(Reshape((*shape[:axis], shape[axis] * step, *after)), padded)
        if dilated.type.shape[axis] == extent:
            return dilated
        return build.emit(Slice.along(axis, 0, extent, dilated.type), dilated)
