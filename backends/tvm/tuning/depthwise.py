"""Depthwise convolutions (`depthwise.py`): results in registers along a line, and for the gradient of the weights the
kernel rows and lines that are summed there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgec.backends.base import Target
from edgec.backends.tvm.tiling import even_split, lines_in_registers, results_in_registers, rows_in_registers
from edgec.backends.tvm.tuning.machine import machine_of
from edgec.backends.tvm.tuning.problem import class_of_shapes

_LINE_BLOCKS = (1, 2, 4, 8)  # of the usual number
_TILE_CYCLES = 15.0


@dataclass(frozen=True)
class DepthwiseTile:
    """Up to `results` neighbours along x, of one vector of channels."""

    results: int


@dataclass(frozen=True)
class _Lines:
    """`lines` lines of `width` results, each of `taps_y` x `taps_x` sources that lie `stride` apart for neighbours."""

    lines: int
    width: int
    channels: int
    taps_y: int
    taps_x: int
    stride: int
    steps: int
    operands: int

    def shape(self) -> dict[str, int]:
        return class_of_shapes(self, ("taps_y", "taps_x", "stride", "operands"))


@dataclass(frozen=True)
class DepthwiseProblem(_Lines):
    """A convolution, or the gradient of its input."""

    kind: ClassVar[str] = "depthwise"
    parameters: ClassVar[type] = DepthwiseTile

    def candidates(self, target: Target) -> tuple[DepthwiseTile, ...]:
        most = results_in_registers(target)
        return tuple(DepthwiseTile(results) for results in dict.fromkeys((most, most - 2, most // 2, 4)))

    def cycles(self, parameters: DepthwiseTile, target: Target) -> float:
        machine = machine_of(target)
        results, taller, shorter = even_split(self.width, parameters.results)
        vectors = -(-self.channels // target.lanes)
        total = 0.0
        for count, own in ((taller, results), (shorter, results - 1)):
            sources = (own - 1) * self.stride + self.taps_x
            row = max(own * self.taps_x / machine.multiply_adds, (sources + self.taps_x) / machine.loads)
            row = max(row, machine.latency * self.taps_x / max(1, own))
            after = own * (self.steps + self.operands) / machine.multiply_adds
            total += count * (self.taps_y * row + after + _TILE_CYCLES)
        return total * self.lines * vectors


@dataclass(frozen=True)
class DepthwiseSumTile:
    """`kernel_rows` rows of taps are in registers while `results` neighbours of a line at a time, and `lines` lines,
    go by.
    """

    results: int
    kernel_rows: int
    lines: int


@dataclass(frozen=True)
class DepthwiseSumProblem(_Lines):
    """The gradient of a depthwise weight: sums over `lines` lines of `width` positions."""

    kind: ClassVar[str] = "depthwise_sum"
    parameters: ClassVar[type] = DepthwiseSumTile

    def candidates(self, target: Target) -> tuple[DepthwiseSumTile, ...]:
        half, rows = results_in_registers(target) // 2, min(self.taps_y, rows_in_registers(self.taps_x, target))
        lines = lines_in_registers(self.width)
        return tuple(
            DepthwiseSumTile(results, kernel_rows, lines * times)
            for results in dict.fromkeys((half, half - 2))
            for kernel_rows in dict.fromkeys((rows, max(1, rows // 2)))
            for times in _LINE_BLOCKS
        )

    def cycles(self, parameters: DepthwiseSumTile, target: Target) -> float:
        machine = machine_of(target)
        vectors, sums = -(-self.channels // target.lanes), parameters.kernel_rows * self.taps_x
        tiles = -(-self.width // parameters.results)
        own = self.width / tiles  # on average: lines are cut evenly
        sources = parameters.kernel_rows * ((own - 1) * self.stride + self.taps_x)
        step = max(
            own * sums / machine.multiply_adds,
            (own + sources) / machine.loads,
            # Each tap is one sum: neighbours wait for one another.
            machine.latency * own,
        )
        blocks = -(-self.lines // parameters.lines)
        groups = -(-self.taps_y // parameters.kernel_rows)
        between = blocks * (2 * sums / machine.multiply_adds + _TILE_CYCLES)
        # A block goes by once for each vector of channels: it should stay in the far cache, or each pixel waits.
        block = 4 * self.channels * parameters.lines * self.width * (1 + self.stride)
        waits = 0.0 if 4 * block <= 3 * machine.far else self.width * 4 * target.lanes / machine.memory_bytes
        return vectors * groups * (self.lines * (tiles * (step + _TILE_CYCLES / 4) + waits) + between)
