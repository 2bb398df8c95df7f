"""Code of a `GatherSpec`: one slice after the other, each in vectors."""

from __future__ import annotations

from edgec.backends.base import Target
from edgec.backends.tvm._tvm import Expr, PrimFunc, T
from edgec.backends.tvm.builder import Index, Pointer, bind, build_kernel, serial
from edgec.backends.tvm.gathers import GatherSpec
from edgec.backends.tvm.generic.indexing_code import moved_inside
from edgec.backends.tvm.lanes_code import walk


def emit_gather(spec: GatherSpec, target: Target) -> PrimFunc:
    def body(x: Pointer, indices: Pointer, y: Pointer, lo: Expr, hi: Expr) -> None:
        total = spec.outer * spec.count
        share = -(-total // spec.tasks)
        with serial(lo * share, T.min(hi * share, total)) as row:
            outer, place = (row // spec.count, row % spec.count) if spec.outer > 1 else (0, row)
            source = bind((outer * spec.extent + moved_inside(indices.load(place), spec.extent)) * spec.inner)

            def copy(i: Index, lanes: int) -> None:
                y.store(row * spec.inner + i, x.load(source + i, lanes))

            walk(spec.inner, target.lanes, copy)

    return build_kernel(spec.arguments, body)
