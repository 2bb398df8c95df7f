"""A bit for each element: packing them and gating by them, where vectors run along memory. Loads no tvm."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgec.backends.base import Argument, Lowering
from edgec.backends.tvm.products import Request
from edgec.graph.ops.gate_by_bits import GateByBits
from edgec.graph.ops.inside_bits import BITS, InsideBits
from edgec.graph.types import DType
from edgec.runtime.abi import Access, Storage

_PIECE = 4096  # bytes of bits that are a unit of work
_MOST_PIECES = 256
_MOST_TASKS = 32


@dataclass(frozen=True)
class Rows:
    """x is [outer, 8, run] in memory and its bits are [outer, run]; a unit of work is one of `pieces` of a run."""

    outer: int
    run: int
    pieces: int
    tasks: int

    @property
    def elements(self) -> int:
        return self.outer * BITS * self.run

    @property
    def bytes(self) -> int:
        return self.outer * self.run


@dataclass(frozen=True)
class InsideBitsSpec:
    """x, bits."""

    low: float
    high: float
    rows: Rows

    @property
    def stem(self) -> str:
        return "f32_inside_bits"

    @property
    def arguments(self) -> tuple[Argument, ...]:
        return (
            Argument(DType.F32, self.rows.elements, Access.READ),
            Argument(DType.U8, self.rows.bytes, Access.WRITE),
        )


@dataclass(frozen=True)
class GateByBitsSpec:
    """bits, dy, dx; where dx overwrites dy, bits and that."""

    rows: Rows
    in_place: bool

    @property
    def stem(self) -> str:
        return "f32_gate_by_bits"

    @property
    def arguments(self) -> tuple[Argument, ...]:
        bits = Argument(DType.U8, self.rows.bytes, Access.READ)
        accesses = (Access.READ_WRITE,) if self.in_place else (Access.READ, Access.WRITE)
        return (bits, *(Argument(DType.F32, self.rows.elements, access) for access in accesses))


def lower_bits(request: Request) -> Lowering | None:
    """Either op of f32 whose axis is a multiple of 8 and lies in memory as it does in its bits."""
    group, op = request.group, request.group.anchor.op
    if not isinstance(op, (InsideBits, GateByBits)) or group.epilogue:
        return None
    x, result = group.anchor.inputs[0], group.anchor.output
    bits = result if isinstance(op, InsideBits) else group.anchor.inputs[1]
    if x.type.dtype is not DType.F32 or x.type.size == 0 or x.type.shape[op.axis] % BITS:
        return None
    stored = [request.storage[value] for value in (x, bits, result)]
    perm = stored[0].perm
    shapes = (x.type.shape, bits.type.shape, result.type.shape)
    for storage, shape in zip(stored, shapes, strict=True):
        if storage != Storage(shape, perm):
            return None
    rows = _rows(x.type.shape, perm, op.axis)
    if isinstance(op, InsideBits):
        request.call(InsideBitsSpec(op.low, op.high, rows), (x, bits), rows.tasks)
    else:
        in_place = result in request.alias
        operands = (bits, result) if in_place else (bits, x, result)
        request.call(GateByBitsSpec(rows, in_place), operands, rows.tasks)
    return request.lowering()


def _rows(shape: tuple[int, ...], perm: tuple[int, ...], axis: int) -> Rows:
    place = perm.index(axis)
    outer = math.prod(shape[a] for a in perm[:place])
    run = math.prod(shape[a] for a in perm[place:]) // BITS
    counts = range(1, min(run, _MOST_PIECES) + 1)
    pieces = next((n for n in counts if run % n == 0 and run // n <= _PIECE), 1)
    return Rows(outer, run, pieces, max(1, min(_MOST_TASKS, outer * pieces, outer * run // _PIECE)))
