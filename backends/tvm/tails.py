"""What a kernel adds up of the rows that it has stored: a block of them at a time, while the nearest caches hold it.

A `Tail` is a part of the kernel's spec; a small kernel then merges the sums of all blocks. Loads no tvm.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgec.backends.base import Argument
from edgec.backends.tvm.row_blocks import RowBlocks
from edgec.graph.types import DType
from edgec.runtime.abi import Access


@dataclass(frozen=True)
class MomentParts:
    """Of x[images * rows, channels], the mean of each part and its sum of squares around that: [2, parts, channels].

    A part is what a block of rows and an image have in common, so that an image may weigh nothing and hold anything.
    That of block b and image i is part b + i, or b where no block has rows of two images; a few numbers may be without
    a part.
    """

    blocks: RowBlocks
    images: int
    channels: int

    @property
    def rows(self) -> int:
        """Of an image."""
        return self.blocks.rows // self.images

    @property
    def crossing(self) -> bool:
        """Whether a block may have rows of two images."""
        own = self.blocks.block_rows
        return self.images > 1 and (own == 0 or self.rows % own != 0)

    @property
    def parts(self) -> int:
        return self.blocks.count + (self.images - 1 if self.crossing else 0)

    @property
    def results(self) -> Argument:
        return Argument(DType.F32, 2 * self.parts * self.channels, Access.WRITE)

    @property
    def label(self) -> str:
        return "_moments"

    @property
    def arguments(self) -> tuple[Argument, ...]:
        """Beside x."""
        return (self.results,)


@dataclass(frozen=True)
class NormGradParts:
    """Of dy[rows, channels], with x alike, mean[channels] and inv_std[channels]: for each block the sums of
    dy * (x - mean) * inv_std and of dy, [blocks, channels] each.
    """

    blocks: RowBlocks
    channels: int

    @property
    def label(self) -> str:
        return "_norm_param_grad"

    @property
    def arguments(self) -> tuple[Argument, ...]:
        x = Argument(DType.F32, self.blocks.rows * self.channels, Access.READ)
        statistic = Argument(DType.F32, self.channels, Access.READ)
        sums = Argument(DType.F32, self.blocks.count * self.channels, Access.WRITE)
        return x, statistic, statistic, sums, sums


@dataclass(frozen=True)
class Tail:
    """`sums` of what the kernel stores to argument `of` of its epilogue. Its own arguments follow the epilogue's."""

    of: int
    sums: MomentParts | NormGradParts

    @property
    def label(self) -> str:
        return self.sums.label

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return self.sums.arguments
