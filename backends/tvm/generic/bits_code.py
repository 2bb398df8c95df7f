"""One element of the ops that keep a bit for each element, in bytes along an axis."""

from __future__ import annotations

from collections.abc import Sequence

from edgec.backends.tvm._tvm import Expr, tirx
from edgec.backends.tvm.builder import Index, bind, cast, constant, select
from edgec.backends.tvm.generic.loops_code import Variable, inside, where
from edgec.backends.tvm.generic.tensor_code import Tensor, quotient, remainder
from edgec.graph.ops.gate_by_bits import GateByBits
from edgec.graph.ops.inside_bits import BITS, InsideBits
from edgec.graph.types import DType


def inside_bits(op: InsideBits, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    (x,) = inputs
    extent = x.shape[op.axis]
    count = -(-extent // BITS)
    bits = Variable(0, DType.I32)
    for j in range(BITS):
        i = index[op.axis] + j * count
        with where(inside(i, 0, j * count + count - 1, extent)):
            value = bind(x.load([*index[: op.axis], i, *index[op.axis + 1 :]]))
            bits.set(bits.value | bit(value, op, j))
    return (cast(bits.value, "uint8"),)


def bit(x: Expr, op: InsideBits, j: int) -> Expr:
    """1 << j where `x` lies inside, lane by lane."""
    yes, no = (tirx.const(number, "int32") for number in (1 << j, 0))
    return select(tirx.all(x > constant(op.low), x < constant(op.high)), yes, no)


def gate_by_bits(op: GateByBits, inputs: Sequence[Tensor], index: Sequence[Index]) -> tuple[Expr, ...]:
    dy, bits = inputs
    count = bits.shape[op.axis]
    i = index[op.axis]
    packed = cast(bits.load([*index[: op.axis], remainder(i, count), *index[op.axis + 1 :]]), "int32")
    is_set = (packed >> quotient(i, count)) & tirx.const(1, "int32")
    return (select(is_set != tirx.const(0, "int32"), dy.load(index), constant(0.0)),)
