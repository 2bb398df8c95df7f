"""What `arg_max` and `arg_min` have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgec.graph.ops.base import Op, type_error
from edgec.graph.ops.checks import operands, require_axis, require_number
from edgec.graph.types import DType, TensorType


@dataclass(frozen=True)
class ArgReduction(Op):
    """x -> i64 positions along `axis`, which goes, or stays as 1 with `keepdims`."""

    axis: int
    keepdims: bool = False
    last: bool = False

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        (x,) = operands(self, inputs, 1)
        require_number(self, x)
        require_axis(self, self.axis, x)
        if x.shape[self.axis] == 0:
            raise type_error(self, f"axis {self.axis} has no elements", x)
        kept = (1,) if self.keepdims else ()
        return (TensorType(DType.I64, (*x.shape[: self.axis], *kept, *x.shape[self.axis + 1 :])),)

    def position(self, find: Callable[..., np.ndarray], x: np.ndarray) -> np.ndarray:
        """`find` is numpy's argmax or argmin, which give the first of equal elements."""
        if self.last:
            found = x.shape[self.axis] - 1 - find(np.flip(x, self.axis), axis=self.axis, keepdims=self.keepdims)
        else:
            found = find(x, axis=self.axis, keepdims=self.keepdims)
        return np.asarray(found, np.int64)
