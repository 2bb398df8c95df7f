"""Mean and variance of channels in one reading: of some rows by themselves, twice through while the nearest caches hold
them, then of all such parts together.

Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979). Loads no
tvm.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgec.backends.base import Argument, Target
from edgec.backends.tvm.reductions import BLOCK_VECTORS, ReduceSpec
from edgec.backends.tvm.tiling import column_block
from edgec.graph.types import DType
from edgec.runtime.abi import Access

_MOST_ROWS = 256  # 64 channels of them are 64 KB
_FEWEST_ROWS = 8  # parts of less would be nearly as large as what they are parts of


@dataclass(frozen=True)
class PartMomentsSpec:
    """x[images * rows, channels] -> mean of each part and its sum of squares around that, [2, parts, channels]. A part
    is `part_rows` neighbouring rows of an image, its last one what is left. A task is a part.
    """

    images: int
    rows: int
    channels: int
    part_rows: int

    @property
    def stem(self) -> str:
        return "f32_part_moments"

    @property
    def pieces(self) -> int:
        """Parts of an image."""
        return -(-self.rows // self.part_rows)

    @property
    def parts(self) -> int:
        return self.images * self.pieces

    @property
    def results(self) -> Argument:
        return Argument(DType.F32, 2 * self.parts * self.channels, Access.WRITE)

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return Argument(DType.F32, self.images * self.rows * self.channels, Access.READ), self.results


@dataclass(frozen=True)
class MergeMomentsSpec:
    """What `PartMomentsSpec` makes[, weights[images]] -> mean[channels], variance[channels]. The weight of an image is
    shared by its rows; without weights there is one image, of weight 1.
    """

    parts: PartMomentsSpec
    weighted: bool

    @property
    def stem(self) -> str:
        return "f32_merge_moments"

    @property
    def arguments(self) -> tuple[Argument, ...]:
        weights = (Argument(DType.F32, self.parts.images, Access.READ),) if self.weighted else ()
        result = Argument(DType.F32, self.parts.channels, Access.WRITE)
        return Argument(DType.F32, self.parts.results.elements, Access.READ), *weights, result, result

    def tasks(self, target: Target) -> int:
        """Blocks of channels."""
        return -(-self.parts.channels // column_block(self.parts.channels, target, BLOCK_VECTORS))


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
    if rows < _FEWEST_ROWS or x.strides != dense or any(own.strides != (1, 0, 0) for own in weights):
        return None
    parts = PartMomentsSpec(images, rows, channels, -(-rows // -(-rows // _MOST_ROWS)))
    return MergeMomentsSpec(parts, bool(weights))
