"""Products that gradients are made of, in a form that keeps its digits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgec.graph.ops.add import Add
from edgec.graph.ops.base import GradientBuilder
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.sub import Sub

if TYPE_CHECKING:
    from edgec.graph.ir import Value


def one_minus_square(build: GradientBuilder, x: Value) -> Value:
    """1 - x^2 as (1 - x) (1 + x): near 1, the square would be rounded first."""
    one = build.constant(np.array(1.0))
    return build.emit(Mul(), build.emit(Sub(), one, x), build.emit(Add(), one, x))
