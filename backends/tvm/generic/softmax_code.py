"""Softmax, its cross entropy with labels, and the gradient of that."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from edgec.backends.tvm._tvm import Expr, tirx
from edgec.backends.tvm.builder import Index, bind, constant, select
from edgec.backends.tvm.functions import exp, log
from edgec.backends.tvm.generic.loops_code import Variable, loops
from edgec.backends.tvm.generic.tensor_code import Tensor, unravel
from edgec.graph.ops.softmax import Softmax
from edgec.graph.ops.softmax_cross_entropy import SoftmaxCrossEntropy
from edgec.graph.ops.softmax_cross_entropy_grad import SoftmaxCrossEntropyGrad


def softmax(op: Softmax, inputs: Sequence[Tensor], outputs: Sequence[Tensor | None], row: Index) -> None:
    """One run along the axis."""
    (x,), (y,) = inputs, outputs
    others = unravel(row, x.shape[: op.axis] + x.shape[op.axis + 1 :])
    _normalise(x, y, x.shape[op.axis], lambda i: [*others[: op.axis], i, *others[op.axis :]])


def softmax_cross_entropy(
    op: SoftmaxCrossEntropy, inputs: Sequence[Tensor], outputs: Sequence[Tensor | None], row: Index
) -> None:
    """The whole op; the mean runs over the batch in order.

    -log p is taken as log(sum) - (x[label] - max): no small p is rounded first.
    """
    logits, labels = inputs
    loss, probabilities = outputs
    batch, classes = logits.shape
    total = Variable(0.0)
    with loops(batch) as (n,):
        highest, partition = _normalise(logits, probabilities, classes, lambda i: [n, i])
        label = bind(tirx.Cast("int32", labels.load([n])))
        total.add(log(partition) - (logits.load([n, label]) - highest))
    if loss is not None:
        loss.store([], total.value / constant(float(batch)))


def softmax_cross_entropy_grad(
    op: SoftmaxCrossEntropyGrad, inputs: Sequence[Tensor], index: Sequence[Index]
) -> tuple[Expr, ...]:
    """dlogits[n, c] = (p[n, c] - (c == label)) * dloss / N."""
    probabilities, labels, dloss = inputs
    n, c = index
    hit = labels.load([n]) == tirx.Cast("int64", c)
    target = select(hit, constant(1.0), constant(0.0))
    scale = dloss.load([]) / constant(float(probabilities.shape[0]))
    return ((probabilities.load([n, c]) - target) * scale,)


def _normalise(x: Tensor, y: Tensor | None, extent: int, at: Callable[[Index], list[Index]]) -> tuple[Expr, Expr]:
    """Softmax of the elements `at(i)`, written if wanted; returns their maximum and the sum of exp(x - maximum)."""
    highest, total = Variable(-math.inf), Variable(0.0)
    with loops(extent) as (i,):
        # A NaN that is passed over here is met again by exp.
        highest.set(select(x.load(at(i)) > highest.value, x.load(at(i)), highest.value))
    top = bind(highest.value)
    with loops(extent) as (i,):
        total.add(exp(x.load(at(i)) - top))
    partition = bind(total.value)
    if y is not None:
        with loops(extent) as (i,):
            y.store(at(i), exp(x.load(at(i)) - top) / partition)
    return top, partition
