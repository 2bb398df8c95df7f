"""Few rows by a weight that lies in panels the other way round: its rows as they lie (`dots.DotSpec`), or transposed
into a workspace for a product with the depth innermost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from edgec.backends.base import Target
from edgec.backends.tvm.tuning.machine import machine_of
from edgec.backends.tvm.tuning.problem import class_of_shapes

_MOST_ROWS = 32  # from here on a transposed weight is as fast on every machine that was measured
# Measured: vectors of both operands are loaded where a product by scalars has one in registers; the lanes of a
# result take so many cycles to add; rows that leave the near cache hide a little behind products.
_LOADS, _FOLDED, _SEEN = 1.2, 1.4, 0.8
_TILE_COLUMNS = 3


@dataclass(frozen=True)
class FewRowsForm:
    form: Literal["dots", "transposed"]


@dataclass(frozen=True)
class FewRowsProblem:
    """[rows, depth] by a weight of `columns` rows along which the depth runs."""

    kind: ClassVar[str] = "few_rows"
    parameters: ClassVar[type] = FewRowsForm

    rows: int
    depth: int
    columns: int

    def shape(self) -> dict[str, int]:
        return class_of_shapes(self)

    def candidates(self, target: Target) -> tuple[FewRowsForm, ...]:
        both = (FewRowsForm("dots"), FewRowsForm("transposed"))
        return both if self.rows <= _MOST_ROWS else both[1:]

    def cycles(self, parameters: FewRowsForm, target: Target) -> float:
        machine = machine_of(target)
        macs, weight = self.rows * self.depth * self.columns, 4 * self.depth * self.columns
        rate = machine.far_bytes if weight <= machine.far else machine.memory_bytes
        products = macs / (target.lanes * machine.multiply_adds)
        if parameters.form == "dots":
            outside = max(0, 4 * self.rows * self.depth - machine.near)
            again = _SEEN * outside * self.columns / (_TILE_COLUMNS * machine.far_bytes)
            return max(_LOADS * products, weight / rate) + _FOLDED * self.rows * self.columns + again
        # Read, written, and read again.
        return products + 3 * weight / rate
