"""Code of the gradient of picked rows: zeros, then sums in the order of the indices."""

from __future__ import annotations

from edgec.backends.base import Target
from edgec.backends.tvm._tvm import Expr, PrimFunc, T, tirx
from edgec.backends.tvm.builder import Index, Pointer, bind, build_kernel, fill_value, serial, when
from edgec.backends.tvm.generic.indexing_code import moved_inside
from edgec.backends.tvm.lanes_code import walk
from edgec.backends.tvm.scatter import GatherGradSpec


def emit_gather_grad(spec: GatherGradSpec, target: Target) -> PrimFunc:
    def body(dy: Pointer, indices: Pointer, dx: Pointer, lo: Expr, hi: Expr) -> None:
        share = -(-spec.rows // spec.tasks)
        start, stop = bind(lo * share), bind(T.min(hi * share, spec.rows))

        def clear(row: Index) -> None:
            walk(
                spec.columns,
                target.lanes,
                lambda i, lanes: dx.store(row * spec.columns + i, fill_value(lo, lanes)),
            )

        with serial(start, stop) as row:
            clear(row)
        with serial(0, spec.updates) as update:
            row = moved_inside(indices.load(update), spec.rows)

            def add(i: Index, lanes: int) -> None:
                at = row * spec.columns + i
                dx.store(at, dx.load(at, lanes) + dy.load(update * spec.columns + i, lanes))

            with when(tirx.all(row >= start, row < stop)):
                walk(spec.columns, target.lanes, add)

    return build_kernel(spec.arguments, body)
