"""Code of softmax and its cross entropy: three passes over each row, in vectors along the classes."""

from __future__ import annotations

import math

from edgec.backends.base import Target
from edgec.backends.tvm._tvm import Expr, PrimFunc, T, tirx
from edgec.backends.tvm.builder import Index, Pointer, bind, broadcast, build_kernel, constant, maximum, serial
from edgec.backends.tvm.functions import exp, log
from edgec.backends.tvm.generic.loops_code import Variable
from edgec.backends.tvm.lanes_code import LaneFold, walk
from edgec.backends.tvm.softmax import CrossEntropySpec, SoftmaxSpec


def emit_softmax(spec: SoftmaxSpec, target: Target) -> PrimFunc:
    def body(x: Pointer, *rest: Pointer | Expr) -> None:
        *outputs, lo, hi = rest
        y = outputs[0] if outputs else x
        share = -(-spec.rows // spec.tasks)
        with serial(lo * share, T.min(hi * share, spec.rows)) as row:
            _normalise(x, y, row * spec.classes, spec.classes, target)

    return build_kernel(spec.arguments, body)


def emit_cross_entropy(spec: CrossEntropySpec, target: Target) -> PrimFunc:
    """The mean runs over the batch in order. -log p is log(sum) - (x[label] - max): no small p is rounded first."""

    def body(logits: Pointer, labels: Pointer, loss: Pointer, *rest: Pointer | Expr) -> None:
        *probabilities, lo, hi = rest
        with serial(lo, hi):
            total = Variable(0.0)
            with serial(0, spec.batch) as n:
                start = n * spec.classes
                y = probabilities[0] if probabilities else None
                highest, partition = _normalise(logits, y, start, spec.classes, target)
                label = bind(tirx.Cast("int32", labels.load(n)))
                total.add(log(partition) - (logits.load(start + label) - highest))
            loss.store(0, total.value / constant(float(spec.batch)))

    return build_kernel(spec.arguments, body)


def _normalise(x: Pointer, y: Pointer | None, start: Index, classes: int, target: Target) -> tuple[Expr, Expr]:
    """Softmax of the row at `start`, written if wanted; returns its maximum and the sum of exp(x - maximum).

    The exponentials wait in `y`; without it they are only summed. x and y may be the same memory.
    """
    highest = LaneFold(classes, target.lanes, -math.inf, maximum)
    walk(classes, target.lanes, lambda i, lanes: highest.add(x.load(start + i, lanes), lanes))
    top = bind(highest.result())
    total = LaneFold(classes, target.lanes, 0.0, lambda a, b: a + b)

    def power(i: Index, lanes: int) -> None:
        value = exp(x.load(start + i, lanes) - broadcast(top, lanes))
        total.add(value, lanes)
        if y is not None:
            y.store(start + i, value)

    walk(classes, target.lanes, power)
    partition = bind(total.result())
    if y is not None:

        def divide(i: Index, lanes: int) -> None:
            y.store(start + i, y.load(start + i, lanes) / broadcast(partition, lanes))

        walk(classes, target.lanes, divide)
    return top, partition
