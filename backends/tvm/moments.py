"""Mean and variance of channels in one reading: of some rows by themselves, twice through while the nearest caches hold
them, then of all such parts together.

Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979). The kernel
that stores the rows may make the parts (`tails.py`). Loads no tvm.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgec.backends.base import Argument, Target
from edgec.backends.tvm.reductions import BLOCK_VECTORS, ReduceSpec
from edgec.backends.tvm.row_blocks import RowBlocks
from edgec.backends.tvm.tails import MomentParts
from edgec.backends.tvm.tiling import column_block
from edgec.graph.types import DType
from edgec.runtime.abi import Access

_MOST_ROWS = 256  # 64 channels of them are 64 KB
FEWEST_ROWS = 8  # parts of less would be nearly as large as what they are parts of


@dataclass(frozen=True)
class PartMomentsSpec:
    """x[images * rows, channels] -> `MomentParts`. A task is a block."""

    of: MomentParts

    @property
    def stem(self) -> str:
        return "f32_part_moments"

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return Argument(DType.F32, self.of.blocks.rows * self.of.channels, Access.READ), self.of.results

    @property
    def tasks(self) -> int:
        return self.of.blocks.count


@dataclass(frozen=True)
class MergeMomentsSpec:
    """`MomentParts`[, weights[images]] -> mean[channels], variance[channels]. The weight of an image is shared by its
    rows; without weights there is one image, of weight 1.
    """

    of: MomentParts
    weighted: bool

    @property
    def stem(self) -> str:
        return "f32_merge_moments"

    @property
    def arguments(self) -> tuple[Argument, ...]:
        weights = (Argument(DType.F32, self.of.images, Access.READ),) if self.weighted else ()
        result = Argument(DType.F32, self.of.channels, Access.WRITE)
        return Argument(DType.F32, self.of.results.elements, Access.READ), *weights, result, result

    def tasks(self, target: Target) -> int:
        """Blocks of channels."""
        return -(-self.of.channels // column_block(self.of.channels, target, BLOCK_VECTORS))


def merged_moments(mean: ReduceSpec) -> MergeMomentsSpec | None:
    """The moments whose mean `mean` would be, of x and perhaps weights; None where channels are not innermost, or
    weights are not those of images of many rows.
    """
    nest = mean.nest
    *outer, channels = nest.extents
    x, *weights, _ = nest.tensors
    if mean.kept != (len(outer),):
        return None
    images, rows = outer if weights and len(outer) == 2 else (1, *outer) if not weights and len(outer) == 1 else (0, 0)
    dense = (rows * channels, channels, 1)[-len(nest.extents) :]
    if rows < FEWEST_ROWS or x.strides != dense or any(own.strides != (1, 0, 0) for own in weights):
        return None
    pieces = -(-rows // _MOST_ROWS)  # of an image, if they can be equal
    blocks = RowBlocks.of_most(images * rows, -(-rows // pieces))
    return MergeMomentsSpec(MomentParts(blocks, images, channels), bool(weights))
