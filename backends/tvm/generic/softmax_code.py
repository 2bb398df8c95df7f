"""Softmax, and its cross entropy with targets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from edgec.backends.tvm._tvm import Expr
from edgec.backends.tvm.builder import Index, bind, constant, select
from edgec.backends.tvm.functions import exp, log
from edgec.backends.tvm.generic.loops_code import Variable, divided, once
from edgec.backends.tvm.generic.tensor_code import Tensor, unravel
from edgec.graph.ops.softmax import Softmax
from edgec.graph.ops.softmax_cross_entropy import SoftmaxCrossEntropy


def softmax(op: Softmax, inputs: Sequence[Tensor], outputs: Sequence[Tensor | None], row: Index) -> None:
    """One run along the axis."""
    (x,), (y,) = inputs, outputs
    others = unravel(row, x.shape[: op.axis] + x.shape[op.axis + 1 :])
    _normalise(x, y, x.shape[op.axis], lambda i: [*others[: op.axis], i, *others[op.axis :]])


def softmax_cross_entropy(
    op: SoftmaxCrossEntropy, inputs: Sequence[Tensor], outputs: Sequence[Tensor | None], row: Index
) -> None:
    """One row of logits and targets. -log p is taken as log(sum) - (x - max): no small p is rounded first."""
    logits, targets = inputs
    losses, slopes, *_ = (*outputs, None)
    classes = logits.shape[1]
    highest, partition = _normalise(logits, None, classes, lambda i: [row, i])
    rest = bind(log(partition))
    total, weight = Variable(0.0), Variable(0.0)
    with divided(classes) as (i,):
        target = bind(targets.load([row, i]))
        value = target * (rest - (logits.load([row, i]) - highest))
        total.add(select(target == constant(0.0), constant(0.0), value))
        weight.add(target)
    loss, counted = total.total, bind(weight.total)
    if slopes is not None:
        with divided(classes) as (i,):
            p = exp(logits.load([row, i]) - highest) / partition
            slopes.store([row, i], p * counted - targets.load([row, i]))
    if losses is not None:
        with once():
            losses.store([row], loss)


def _normalise(x: Tensor, y: Tensor | None, extent: int, at: Callable[[Index], list[Index]]) -> tuple[Expr, Expr]:
    """Softmax of the elements `at(i)`, written if wanted; returns their maximum and the sum of exp(x - maximum)."""
    highest, total = Variable(-math.inf), Variable(0.0)
    with divided(extent) as (i,):
        # A NaN that is passed over here is met again by exp.
        highest.set(select(x.load(at(i)) > highest.value, x.load(at(i)), highest.value))
    top = bind(highest.combined(lambda a, b: select(b > a, b, a)))
    with divided(extent) as (i,):
        total.add(exp(x.load(at(i)) - top))
    partition = bind(total.total)
    if y is not None:
        with divided(extent) as (i,):
            y.store(at(i), exp(x.load(at(i)) - top) / partition)
    return top, partition
