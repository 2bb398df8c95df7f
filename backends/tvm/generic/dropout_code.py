"""One element of a dropout: the number that decides on it is drawn for it alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgec.backends.tvm._tvm import Expr, tirx
from edgec.backends.tvm.builder import Index, bind, constant, select
from edgec.backends.tvm.generic.tensor_code import Tensor, quotient, ravel, remainder
from edgec.backends.tvm.random_code import threefry2x32, word
from edgec.graph.ops.dropout import Dropout, blocks


def dropout(op: Dropout, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    x, *state = inputs
    value = x.load(index)
    if not state:
        return (value,)
    seed, step = (tensor.load([]) for tensor in state)
    own = len(x.shape) - op.shared
    position = ravel(index[:own], x.shape[:own])
    quarter = blocks(math.prod(x.shape[:own]))
    zero = tirx.const(0, "int32")  # makes expressions of constant positions
    part, block = bind(zero + quotient(position, quarter)), bind(zero + remainder(position, quarter))
    low, high = threefry2x32(seed, op.stream, step, block)
    chosen = bind(select(part < 2, low, high))
    number = select(remainder(part, 2) < 1, chosen & word(0xFFFF, 1), chosen >> word(16, 1))
    return (select(number >= word(op.threshold, 1), value * constant(op.scale), constant(0.0)),)
