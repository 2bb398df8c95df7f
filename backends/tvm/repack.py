"""Specs of kernels that prepare an operand in a workspace: a transposed weight in panels, a zero-padded NHWC copy."""

from __future__ import annotations

from dataclasses import dataclass

from edgec.backends.base import Argument
from edgec.graph.types import DType
from edgec.runtime.abi import Access


@dataclass(frozen=True)
class TransposeSpec:
    """A weight as the right matrix of its input gradient: depth and columns change roles, and taps may be left out.

    From [source panels of depth][all_taps][columns][width] to [panels of columns][taps][depth][width];
    `source_width` and `width` are those of full panels. A row-major [columns, depth] matrix is the case of one tap
    and one source panel. Tasks: panels of columns.
    """

    columns: int
    depth: int
    all_taps: int
    taps: tuple[int, ...]
    source_width: int
    width: int

    @property
    def stem(self) -> str:
        return "f32_transpose_weight"

    @property
    def arguments(self) -> tuple[Argument, ...]:
        size = self.columns * self.depth
        return (
            Argument(DType.F32, self.all_taps * size, Access.READ),
            Argument(DType.F32, len(self.taps) * size, Access.WRITE),
        )

    @property
    def tasks(self) -> int:
        return -(-self.columns // self.width)


@dataclass(frozen=True)
class PadSpec:
    """x[N,C,H,W] with element `strides` in that order, copied to NHWC with `pads` (top, left, bottom, right) of
    zeros.

    Tasks: padded lines, N * (top + H + bottom).
    """

    shape: tuple[int, int, int, int]
    strides: tuple[int, int, int, int]
    pads: tuple[int, int, int, int]

    @property
    def stem(self) -> str:
        return "f32_pad_nhwc"

    @property
    def padded(self) -> tuple[int, int]:
        top, left, bottom, right = self.pads
        return self.shape[2] + top + bottom, self.shape[3] + left + right

    @property
    def arguments(self) -> tuple[Argument, ...]:
        n, c, h, w = self.shape
        height, width = self.padded
        return (
            Argument(DType.F32, n * c * h * w, Access.READ),
            Argument(DType.F32, n * height * width * c, Access.WRITE),
        )

    @property
    def tasks(self) -> int:
        return self.shape[0] * self.padded[0]
