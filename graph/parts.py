"""How a parameter of the source model stands in programs that hold it in pieces, in another order, or with adapters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Parts:
    """A parameter that the programs do not hold as the source model has it.

    pieces: the leaves that make it up, one after the other along `axis`.
    orders: for each axis None, or the source's index of every index that the programs have there.
    adapter: two leaves, and the factor of their product which, in the shape of the parameter, comes on top.
    data: the values of the pieces in the beginning; an artifact has them even where no program reads a piece, because
    it was folded into a constant.
    """

    pieces: tuple[str, ...]
    axis: int = 0
    orders: tuple[tuple[int, ...] | None, ...] = ()
    adapter: tuple[str, str, float] | None = None
    data: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict:
        """For the manifest; `runtime/parts.py` reads it."""
        return {
            "pieces": list(self.pieces),
            "axis": self.axis,
            "orders": [None if order is None else list(order) for order in self.orders],
            "adapter": None if self.adapter is None else list(self.adapter),
        }
