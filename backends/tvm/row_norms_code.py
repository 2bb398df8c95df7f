"""Code of a `RowNormSpec`: the mean, the spread around it, and the results, each one pass over a row in vectors."""

from __future__ import annotations

from collections.abc import Callable

from edgec.backends.base import Target
from edgec.backends.tvm._tvm import Expr, PrimFunc, T
from edgec.backends.tvm.builder import Index, Pointer, bind, broadcast, build_kernel, constant, serial
from edgec.backends.tvm.functions import rsqrt, squared
from edgec.backends.tvm.lanes_code import LaneFold, walk
from edgec.backends.tvm.row_norms import RowNormSpec
from edgec.graph.ops.layer_norm import LayerNorm


def emit_row_norm(spec: RowNormSpec, target: Target) -> PrimFunc:
    def body(x: Pointer, *rest: Pointer | Expr) -> None:
        *pointers, lo, hi = rest
        factors, written = pointers[: spec.factors], pointers[spec.factors :]
        results = dict(zip((i for i in spec.wanted if i or not spec.in_place), written, strict=True))
        if spec.in_place:
            results[0] = x
        share = -(-spec.rows // spec.tasks)
        with serial(lo * share, T.min(hi * share, spec.rows)) as row:
            _row(spec, target, x, factors, results, row)

    return build_kernel(spec.arguments, body)


def _row(
    spec: RowNormSpec, target: Target, x: Pointer, factors: list[Pointer], results: dict[int, Pointer], row: Index
) -> None:
    start = row * spec.width
    statistics = []
    centred: Callable[[Index, int], Expr] = lambda i, lanes: x.load(start + i, lanes)  # noqa: E731
    if isinstance(spec.op, LayerNorm):
        mean = mean_of(spec.width, target, centred)
        statistics.append(mean)
        centred = lambda i, lanes: x.load(start + i, lanes) - broadcast(mean, lanes)  # noqa: E731

    def square(i: Index, lanes: int) -> Expr:
        return squared(centred(i, lanes))

    scale = bind(rsqrt(mean_of(spec.width, target, square) + constant(spec.op.epsilon)))
    statistics.append(scale)
    if 0 in results:

        def store(i: Index, lanes: int) -> None:
            value = centred(i, lanes) * broadcast(scale, lanes)
            for number, factor in enumerate(factors):
                value = value + factor.load(i, lanes) if number else value * factor.load(i, lanes)
            results[0].store(start + i, value)

        walk(spec.width, target.lanes, store)
    for number, value in enumerate(statistics, 1):
        if number in results:
            results[number].store(row, value)


def mean_of(width: int, target: Target, element: Callable[[Index, int], Expr]) -> Expr:
    total = LaneFold(width, target.lanes, 0.0, lambda a, b: a + b)
    walk(width, target.lanes, lambda i, lanes: total.add(element(i, lanes), lanes))
    return bind(total.result() / constant(float(width)))
