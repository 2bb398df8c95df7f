"""Code of softmax and its cross entropy: three passes over each row, in vectors along the classes."""

from __future__ import annotations

import math

from edgec.backends.base import Target
from edgec.backends.tvm._tvm import Expr, PrimFunc, T
from edgec.backends.tvm.builder import (
    Index,
    Pointer,
    bind,
    broadcast,
    build_kernel,
    constant,
    maximum,
    select,
    serial,
)
from edgec.backends.tvm.functions import exp_of_difference, log
from edgec.backends.tvm.lanes_code import LaneFold, walk
from edgec.backends.tvm.softmax import CrossEntropySpec, SoftmaxSpec


def emit_softmax(spec: SoftmaxSpec, target: Target) -> PrimFunc:
    def body(x: Pointer, *rest: Pointer | Expr) -> None:
        *outputs, lo, hi = rest
        y = outputs[0] if outputs else x
        share = -(-spec.rows // spec.tasks)
        with serial(lo * share, T.min(hi * share, spec.rows)) as row:
            start = row * spec.classes
            _, partition = exponentials(x, y, start, spec.classes, target)
            scale = bind(constant(1.0) / partition)

            def normalise(i: Index, lanes: int) -> None:
                y.store(start + i, y.load(start + i, lanes) * broadcast(scale, lanes))

            walk(spec.classes, target.lanes, normalise)

    return build_kernel(spec.arguments, body)


def emit_cross_entropy(spec: CrossEntropySpec, target: Target) -> PrimFunc:
    """-log p is taken as log(sum) - (x - max): no small p is rounded first. A target of 0 counts nothing."""

    def body(logits: Pointer, targets: Pointer, losses: Pointer, *rest: Pointer | Expr) -> None:
        *slopes, lo, hi = rest
        y = slopes[0] if slopes else None
        share = -(-spec.rows // spec.tasks)
        with serial(lo * share, T.min(hi * share, spec.rows)) as row:
            start = row * spec.classes
            highest, partition = exponentials(logits, y, start, spec.classes, target)
            rest_of = bind(log(partition))
            total, weights = (LaneFold(spec.classes, target.lanes, 0.0, lambda a, b: a + b) for _ in range(2))

            def count(i: Index, lanes: int) -> None:
                t = bind(targets.load(start + i, lanes))
                shifted = logits.load(start + i, lanes) - broadcast(highest, lanes)
                value = t * (broadcast(rest_of, lanes) - shifted)
                zero = constant(0.0, lanes)
                total.add(select(t == zero, zero, value), lanes)
                weights.add(t, lanes)

            walk(spec.classes, target.lanes, count)
            losses.store(row, total.result())
            if y is None:
                return
            scale = bind(weights.result() / partition)

            def slope(i: Index, lanes: int) -> None:
                y.store(start + i, y.load(start + i, lanes) * broadcast(scale, lanes) - targets.load(start + i, lanes))

            walk(spec.classes, target.lanes, slope)

    return build_kernel(spec.arguments, body)


def exponentials(x: Pointer, y: Pointer | None, start: Index, classes: int, target: Target) -> tuple[Expr, Expr]:
    """exp(x - maximum) of the row at `start`, written if wanted; returns the maximum and their sum.

    x and y may be the same memory.
    """
    highest = LaneFold(classes, target.lanes, -math.inf, maximum)
    walk(classes, target.lanes, lambda i, lanes: highest.add(x.load(start + i, lanes), lanes))
    top = bind(highest.result())
    total = LaneFold(classes, target.lanes, 0.0, lambda a, b: a + b)

    def power(i: Index, lanes: int) -> None:
        value = exp_of_difference(x.load(start + i, lanes) - broadcast(top, lanes))
        total.add(value, lanes)
        if y is not None:
            y.store(start + i, value)

    walk(classes, target.lanes, power)
    return top, bind(total.result())
