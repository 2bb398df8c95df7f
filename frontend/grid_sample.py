"""Sampling of images at run-time coordinates: arithmetic on those, one gather for each combination of taps.

Spec: ONNX `GridSample`, 22; torch's `grid_sample` is the same over two and three axes.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from edgec.frontend.writer import Writer
from edgec.graph.ir import Value
from edgec.graph.ops.abs import Abs
from edgec.graph.ops.add import Add
from edgec.graph.ops.base import Op
from edgec.graph.ops.clip import Clip
from edgec.graph.ops.div import Div
from edgec.graph.ops.equal import Equal
from edgec.graph.ops.floor import Floor
from edgec.graph.ops.gather_nd import GatherNd
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.round import Round
from edgec.graph.ops.slice import Slice
from edgec.graph.ops.sub import Sub
from edgec.graph.ops.transpose import Transpose
from edgec.graph.ops.where import Where
from edgec.graph.types import DType

_CUBIC = -0.75  # the parameter of Keys' kernel that ONNX and torch use
_FARTHEST = 2.0**24  # positions beyond which no f32 has a fraction


@dataclass(frozen=True)
class Tap:
    """One position along one axis for every point, as whole f32 numbers within the axis, and its weight."""

    position: Value
    weight: Value | None  # None: 1


@dataclass(frozen=True)
class Sampler:
    """Arithmetic on f32 tensors, one number for each point: [N, P] for a grid."""

    writer: Writer
    padding: str
    corners: bool

    def __call__(self, op: Op, *operands: Value) -> Value:
        return self.writer.emit(op, *operands)

    def plus(self, x: Value, number: float) -> Value:
        return x if number == 0 else self(Add(), x, self.writer.number(number, x))

    def times(self, x: Value, number: float) -> Value:
        return self(Mul(), x, self.writer.number(number, x))

    def taps(self, mode: str, grid: Value, extent: int) -> list[Tap]:
        """`grid` has -1 and 1 at the centres (`corners`) or at the outer edges of the first and last element."""
        place = self.times(self.plus(grid, 1.0), (extent - 1) / 2 if self.corners else extent / 2)
        place = self(Clip(-_FARTHEST, _FARTHEST), place if self.corners else self.plus(place, -0.5))
        if mode == "nearest":
            return [self.inside(self(Round(), place), None, extent)]
        if mode == "linear":
            return self.linear(place, extent)
        low = self(Floor(), place)
        fraction = self(Sub(), place, low)
        weights = [self.cubic(self.distance(fraction, i), near=i in (0, 1)) for i in range(-1, 3)]
        return [self.inside(self.plus(low, float(i)), weight, extent) for i, weight in enumerate(weights, -1)]

    def linear(self, place: Value, extent: int) -> list[Tap]:
        """The two elements beside a place; elements stand at whole numbers."""
        place = self.folded(place, extent)
        low = self(Floor(), place)
        fraction = self(Sub(), place, low)
        weights = [self.plus(self.times(fraction, -1.0), 1.0), fraction]
        return [self.inside(self.plus(low, float(i)), weight, extent) for i, weight in enumerate(weights)]

    def distance(self, fraction: Value, tap: int) -> Value:
        return self.plus(fraction, float(-tap)) if tap < 1 else self.plus(self.times(fraction, -1.0), float(tap))

    def cubic(self, d: Value, *, near: bool) -> Value:
        """Keys' kernel at distance d, in [0, 1] if `near`, else in [1, 2]."""
        a = _CUBIC
        coefficients = (a + 2, -(a + 3), 0.0, 1.0) if near else (a, -5 * a, 8 * a, -4 * a)
        y = self.plus(self.times(d, coefficients[0]), coefficients[1])
        for coefficient in coefficients[2:]:
            y = self.plus(self(Mul(), y, d), coefficient)
        return y

    def folded(self, place: Value, extent: int) -> Value:
        """A place outside of the axis, brought into it where the padding says so."""
        if self.padding == "border":
            return self(Clip(0.0, float(extent - 1)), place)
        if self.padding == "zeros":
            return place
        low, span = (0.0, float(extent - 1)) if self.corners else (-0.5, float(extent))
        if span == 0:
            return self.times(place, 0.0)
        # A triangle wave: low + span - |t - span| with t = (place - low) modulo 2 * span.
        shifted = self.plus(place, -low)
        turns = self(Floor(), self(Div(), shifted, self.writer.number(2 * span, shifted)))
        rest = self(Sub(), shifted, self.times(turns, 2 * span))
        return self.plus(self.times(self(Abs(), self.plus(rest, -span)), -1.0), low + span)

    def inside(self, position: Value, weight: Value | None, extent: int) -> Tap:
        """A tap within the axis; what lies outside counts for nothing if padding is with zeros."""
        if self.padding != "zeros":
            position = self.folded(position, extent)
            # Half a step outside after reflection: the nearest element.
            return Tap(self(Clip(0.0, float(extent - 1)), position), weight)
        moved = self(Clip(0.0, float(extent - 1)), position)
        counts = self(Equal(), moved, position)
        if weight is None:
            return Tap(moved, self.writer.cast(counts, DType.F32))
        return Tap(moved, self(Where(), counts, weight, self.writer.number(0.0, position)))


def grid_sample(writer: Writer, x: Value, grid: Value, mode: str, padding: str, corners: bool) -> Value:
    """x[N,C,*size] at grid[N,*points,axes] in [-1,1]: [N,C,*points].

    mode: linear, nearest or cubic. padding: zeros, border or reflection. corners: -1 and 1 are the centres of the outer
    elements, else their edges. The last coordinate belongs to the first axis.
    """
    n, channels, *size = x.type.shape
    points = grid.type.shape[1:-1]
    sampler = Sampler(writer, padding, corners)
    count, rank = math.prod(points), len(size)
    flat = sampler(Reshape((n, count, rank)), writer.cast(grid, DType.F32))
    taps = []
    for axis, extent in enumerate(size):
        column = rank - 1 - axis
        own = sampler(Reshape((n, count)), sampler(Slice.along(2, column, column + 1, flat.type), flat))
        taps.append(sampler.taps(mode, own, extent))
    rows = sampler(Transpose((0, 2, 1)), sampler(Reshape((n, channels, math.prod(size))), x))
    total = None
    for combination in itertools.product(*taps):
        part = _read(sampler, rows, combination, size)
        total = part if total is None else sampler(Add(), total, part)
    assert total is not None  # every axis has a tap
    return sampler(Reshape((n, channels, *points)), sampler(Transpose((0, 2, 1)), total))


def _read(sampler: Sampler, rows: Value, taps: tuple[Tap, ...], size: list[int]) -> Value:
    """The elements of rows[N, S, C] at one tap for each axis, weighted: [N, P, C]."""
    writer = sampler.writer
    place, weight = None, None
    for tap, extent in zip(taps, size, strict=True):
        position = writer.cast(tap.position, DType.I32)
        if place is not None:
            step = writer.constant(np.array(extent, np.int32))
            position = sampler(Add(), sampler(Mul(), place, step), position)
        place = position
        if tap.weight is not None:
            weight = tap.weight if weight is None else sampler(Mul(), weight, tap.weight)
    assert place is not None  # there are two axes or three
    found = sampler(GatherNd(1), rows, sampler(Reshape((*place.type.shape, 1)), place))
    if weight is None:
        return found
    weight = writer.cast(weight, rows.type.dtype)
    return sampler(Mul(), found, sampler(Reshape((*weight.type.shape, 1)), weight))
