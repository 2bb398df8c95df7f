"""One element of the ops that only move data: where it comes from."""

from __future__ import annotations

from collections.abc import Sequence

from edgec.backends.tvm._tvm import Expr
from edgec.backends.tvm.builder import Index
from edgec.backends.tvm.generic.loops_code import Variable, inside, where
from edgec.backends.tvm.generic.tensor_code import Tensor, ravel, unravel
from edgec.graph.ops.concat import Concat
from edgec.graph.ops.pad import Pad
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.slice import Slice
from edgec.graph.ops.transpose import Transpose


def reshape(op: Reshape, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    (x,) = inputs
    return (x.load(unravel(ravel(index, op.shape), x.shape)),)


def transpose(op: Transpose, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    (x,) = inputs
    source: list[Index] = [0] * len(index)
    for i, axis in zip(index, op.perm, strict=True):
        source[axis] = i
    return (x.load(source),)


def slice_(op: Slice, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    (x,) = inputs
    return (x.load([start + i * step for start, i, step in zip(op.starts, index, op.steps, strict=True)]),)


def concat(op: Concat, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    """From the operand within whose part of the axis the index falls."""
    total = sum(x.shape[op.axis] for x in inputs)
    value = Variable(0, inputs[0].dtype)
    start = 0
    for x in inputs:
        own = index[op.axis] - start
        with where(inside(own, -start, total - 1 - start, x.shape[op.axis])):
            value.set(x.load([*index[: op.axis], own, *index[op.axis + 1 :]]))
        start += x.shape[op.axis]
    return (value.value,)


def pad(op: Pad, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    (x,) = inputs
    value = Variable(op.value, x.dtype)
    source = [i - low for i, low in zip(index, op.low, strict=True)]
    conditions = []
    for i, low, high, extent in zip(source, op.low, op.high, x.shape, strict=True):
        conditions += inside(i, -low, extent - 1 + high, extent)
    with where(conditions):
        value.set(x.load(source))
    return (value.value,)
