"""Code of packed bits: a vector of bytes is made of, or gates, eight vectors that lie a run apart."""

from __future__ import annotations

from collections.abc import Callable

from edgec.backends.base import Target
from edgec.backends.tvm._tvm import Expr, PrimFunc, T
from edgec.backends.tvm.bits import GateByBitsSpec, InsideBitsSpec, Rows
from edgec.backends.tvm.builder import (
    Index,
    Pointer,
    bind,
    build_kernel,
    cast,
    constant,
    like,
    select,
    serial,
    split_width,
)
from edgec.backends.tvm.generic.tensor_code import unravel
from edgec.graph.ops.inside_bits import BITS


def emit_inside_bits(spec: InsideBitsSpec, target: Target) -> PrimFunc:
    rows = spec.rows

    def body(x: Pointer, bits: Pointer, lo: Expr, hi: Expr) -> None:
        def pack(o: Index, at: Index, lanes: int) -> None:
            packed = None
            for j in range(BITS):
                value = bind(x.load((o * BITS + j) * rows.run + at, lanes))
                zero = like(cast(value, "int32"), 0)
                yes = select(value < constant(spec.high, lanes), like(zero, 1 << j), zero)
                own = select(value > constant(spec.low, lanes), yes, zero)
                packed = own if packed is None else packed | own
            bits.store(o * rows.run + at, cast(packed, "uint8"))

        _walk(rows, target, lo, hi, pack)

    return build_kernel(spec.arguments, body)


def emit_gate_by_bits(spec: GateByBitsSpec, target: Target) -> PrimFunc:
    rows = spec.rows

    def body(bits: Pointer, *rest: Pointer | Expr) -> None:
        *pointers, lo, hi = rest
        dy, dx = pointers[0], pointers[-1]

        def gate(o: Index, at: Index, lanes: int) -> None:
            packed = bind(cast(bits.load(o * rows.run + at, lanes), "int32"))
            for j in range(BITS):
                place = (o * BITS + j) * rows.run + at
                is_set = (packed & like(packed, 1 << j)) != like(packed, 0)
                dx.store(place, select(is_set, dy.load(place, lanes), constant(0.0, lanes)))

        _walk(rows, target, lo, hi, gate)

    return build_kernel(spec.arguments, body)


def _walk(rows: Rows, target: Target, lo: Expr, hi: Expr, step: Callable[[Index, Index, int], None]) -> None:
    """`step(outer, place in the run, lanes)` for the vectors of all units of tasks lo..hi-1."""
    units = rows.outer * rows.pieces
    share = -(-units // rows.tasks)
    length = rows.run // rows.pieces
    full = length // target.lanes
    with serial(lo * share, T.min(hi * share, units)) as unit:
        o, piece = unravel(unit, [rows.outer, rows.pieces])
        start = bind(piece * length) if rows.pieces > 1 else 0
        if full:
            with serial(0, full) as vector:
                step(o, start + vector * target.lanes, target.lanes)
        for place, lanes in split_width(length - full * target.lanes, target.lanes):
            step(o, start + full * target.lanes + place, lanes)
