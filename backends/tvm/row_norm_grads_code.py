"""Code of a `RowNormGradSpec`: two means over a row, then one pass that writes it."""

from __future__ import annotations

from edgec.backends.base import Target
from edgec.backends.tvm._tvm import Expr, PrimFunc, T
from edgec.backends.tvm.builder import Index, Pointer, bind, broadcast, build_kernel, serial
from edgec.backends.tvm.lanes_code import walk
from edgec.backends.tvm.row_norm_grads import RowNormGradSpec
from edgec.backends.tvm.row_norms_code import mean_of


def emit_row_norm_grad(spec: RowNormGradSpec, target: Target) -> PrimFunc:
    def body(dy: Pointer, x: Pointer, *rest: Pointer | Expr) -> None:
        *others, dx, lo, hi = rest
        gamma = others.pop() if spec.scaled else None

        def differentiate(row: Index) -> None:
            start = row * spec.columns
            *means, inverse = (bind(statistic.load(row)) for statistic in others)

            def gradient(i: Index, lanes: int) -> Expr:
                value = dy.load(start + i, lanes)
                return bind(value * gamma.load(i, lanes) if gamma is not None else value)

            def normal(i: Index, lanes: int) -> Expr:
                value = x.load(start + i, lanes)
                for mean in means:
                    value = value - broadcast(mean, lanes)
                return bind(value * broadcast(inverse, lanes))

            level = mean_of(spec.columns, target, gradient) if spec.centred else None
            slope = mean_of(spec.columns, target, lambda i, lanes: gradient(i, lanes) * normal(i, lanes))

            def write(i: Index, lanes: int) -> None:
                value = gradient(i, lanes) - normal(i, lanes) * broadcast(slope, lanes)
                if level is not None:
                    value = value - broadcast(level, lanes)
                dx.store(start + i, value * broadcast(inverse, lanes))

            walk(spec.columns, target.lanes, write)

        share = -(-spec.rows // spec.tasks)
        with serial(lo * share, T.min(hi * share, spec.rows)) as row:
            differentiate(row)

    return build_kernel(spec.arguments, body)
