"""Losses as nodes: a sum over the rows that count, and what to divide it by for their mean.

Both halves are kept apart for accumulation: gradients of several batches add up as those of sums do. A row is an image,
or one of its positions where every position has a label. Which images count is the run-time scalar `rows`, so that the
last batch of an epoch may be filled up with anything finite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgec.compiler.passes.mask_classes import live_classes
from edgec.compiler.rewrite import reserve, reshape
from edgec.compiler.train import Train
from edgec.graph.errors import UserError
from edgec.graph.ir import Bounds, Graph, Role, Value
from edgec.graph.ops.abs import Abs
from edgec.graph.ops.add import Add
from edgec.graph.ops.base import Op
from edgec.graph.ops.bce_logits import BceLogits
from edgec.graph.ops.cast import Cast
from edgec.graph.ops.clip import Clip
from edgec.graph.ops.div import Div
from edgec.graph.ops.equal import Equal
from edgec.graph.ops.less import Less
from edgec.graph.ops.log import Log
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reduce_max import ReduceMax
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.sigmoid import Sigmoid
from edgec.graph.ops.softmax import Softmax
from edgec.graph.ops.softmax_cross_entropy import SoftmaxCrossEntropy
from edgec.graph.ops.sub import Sub
from edgec.graph.ops.transpose import Transpose
from edgec.graph.ops.where import Where
from edgec.graph.types import DType, TensorType, tensor

ROWS = "rows"


@dataclass(frozen=True)
class Loss:
    """`total` is the sum over the rows that count, `weight` their number or weight, None where that is 1; scalars."""

    total: Value
    weight: Value | None


class LossBuilder:
    """Writes the loss of `train` on values of `graph`, which has `batch` images."""

    def __init__(self, graph: Graph, train: Train, batch: int):
        self._graph, self._train, self._batch = graph, train, batch
        self._rows: Value | None = None

    def classification(self, name: str, output: Value) -> Loss:
        """Softmax cross entropy of scores [N,C], or [N,...,C,...] with a label for each position."""
        scores, label_shape = self._scores(name, self._full(output))
        targets, counted = self._targets(scores, output.type.shape, label_shape)
        losses, _ = self._graph.emit(SoftmaxCrossEntropy(), scores, targets, names=("losses", "slopes"))
        total = self._emit(ReduceSum((0,)), losses)
        if counted is not None:
            return Loss(total, self._emit(ReduceSum((0, 1)), counted))
        return Loss(self._scaled(total, self._batch / scores.type.shape[0]), self._count(scores))

    def elementwise(self, output: Value, labels: str) -> Loss:
        """A loss for every element of `output`, averaged over those of a row; the target is input `labels`."""
        predicted = self._full(output)
        if self._train.loss == "bce_logits":
            predicted = _before(predicted, Sigmoid)
        shape = predicted.type.shape
        target = self._label_leaf(labels, predicted.type)
        losses = self._element_losses(predicted, target)
        if (mask := self._mask(predicted.type)) is not None:
            losses = self._emit(Mul(), losses, self._emit(Reshape((shape[0], *(1 for _ in shape[1:]))), mask))
        total = self._emit(ReduceSum(tuple(range(len(shape)))), losses) if shape else losses
        return Loss(self._scaled(total, self._batch / max(predicted.type.size, 1)), self._count(predicted))

    def of_model(self, name: str, output: Value) -> Loss:
        """A loss that the model computes itself."""
        if output.type.size != 1 or not output.type.dtype.is_float:
            raise UserError("E0302", f"`{name}` is {output.type}: a loss is one float", where=f"output `{name}`")
        return Loss(reshape(self._graph, self._full(output), ()), None)

    def sum(self, losses: list[Loss]) -> Loss:
        """Of losses over the same rows."""
        total = losses[0].total
        for loss in losses[1:]:
            total = self._emit(Add(), total, loss.total)
        return Loss(total, losses[0].weight)

    # -- elements ---------------------------------------------------------------------------------------------------

    def _element_losses(self, predicted: Value, target: Value) -> Value:
        if self._train.loss == "bce_logits":
            return self._emit(BceLogits(), predicted, target)
        error = self._emit(Sub(), predicted, target)
        if self._train.loss == "l1":
            return self._emit(Abs(), error)
        if self._train.loss == "huber":
            # With c the error cut off at delta, c * (error - c / 2) is both branches, and its gradient is c.
            delta = float(self._train.huber_delta)
            near = self._emit(Clip(-delta, delta), error)
            half = self._emit(Mul(), near, self._number(0.5, predicted))
            return self._emit(Mul(), near, self._emit(Sub(), error, half))
        return self._emit(Mul(), error, error)

    # -- classes ----------------------------------------------------------------------------------------------------

    def _scores(self, name: str, output: Value) -> tuple[Value, tuple[int, ...]]:
        """Scores [rows,C] from before a final softmax, and the shape of their labels."""
        shape = output.type.shape
        longer = [axis for axis in range(1, len(shape)) if shape[axis] != 1]
        axis = self._train.class_axis + (len(shape) if self._train.class_axis < 0 else 0)
        if len(shape) < 2 or not 0 < axis < len(shape):
            raise refusal(name, output, self._batch)
        if len(longer) <= 1:  # one vector of scores for each image, whatever its other axes
            classes = output.type.size // self._batch
            return reshape(self._graph, _before_softmax(output, self._batch), (self._batch, classes)), shape[:1]
        output = _before_log_softmax(_before(output, Log))
        if isinstance(_op(output), Softmax) and _op(output).axis == axis:
            output = output.producer.inputs[0]
        rows = output.type.size // shape[axis]
        return self._classes_last(output, axis, rows), (*shape[:axis], *shape[axis + 1 :])

    def _classes_last(self, value: Value, axis: int, rows: int) -> Value:
        rank = value.type.rank
        if axis != rank - 1:
            value = self._emit(Transpose((*(i for i in range(rank) if i != axis), axis)), value)
        return reshape(self._graph, value, (rows, value.type.shape[-1]))

    def _targets(
        self, scores: Value, shape: tuple[int, ...], label_shape: tuple[int, ...]
    ) -> tuple[Value, Value | None]:
        """Targets [rows,C] and, unless every row of a valid image counts the same, the weight of each [rows,1]."""
        train, (rows, classes) = self._train, scores.type.shape
        mask = self._mask(scores.type)
        if mask is not None:
            if rows != self._batch:  # the same for all positions of an image
                spread = np.ones((1, rows // self._batch), scores.type.dtype.numpy)
                mask = self._emit(Mul(), self._emit(Reshape((self._batch, 1)), mask), self._constant(spread))
            mask = self._emit(Reshape((rows, 1)), mask)
        counted = None
        if train.targets == "probabilities":
            leaf = self._label_leaf(train.labels, TensorType(scores.type.dtype, shape))
            axis = train.class_axis % len(shape)
            plain = len(label_shape) == 1
            targets = reshape(self._graph, leaf, (rows, classes)) if plain else self._classes_last(leaf, axis, rows)
        else:
            bounds = Bounds(0, classes - 1, train.ignore_index)
            labels = self._label_leaf(train.labels, tensor(DType.I64, *label_shape), bounds)
            labels = reshape(self._graph, labels, (rows, 1))
            numbers = self._constant(np.arange(classes, dtype=np.int64).reshape(1, classes))
            targets = self._cast(self._emit(Equal(), labels, numbers), scores)
            if train.ignore_index is not None:
                none = self._emit(Equal(), labels, self._constant(np.array(train.ignore_index, np.int64)))
                one = mask or self._number(1.0, scores)
                mask = counted = self._emit(Where(), none, self._number(0.0, scores), one)
        weights = self._class_weights(scores)
        if weights is not None and train.targets == "indices":
            counted = self._emit(ReduceSum((1,), keepdims=True), self._emit(Mul(), targets, weights))
            counted = counted if mask is None else self._emit(Mul(), counted, mask)
        targets = self._smoothed(targets)
        for factor in (weights, mask):
            targets = targets if factor is None else self._emit(Mul(), targets, factor)
        return targets, counted

    def _class_weights(self, scores: Value) -> Value | None:
        weights, classes = self._train.class_weights, scores.type.shape[1]
        if not weights:
            return None
        if len(weights) != classes:
            message = f"{len(weights)} class weights are given, the model has {classes} classes"
            raise UserError("E0302", message, where="class_weights")
        return self._constant(np.array(weights, scores.type.dtype.numpy).reshape(1, classes))

    def _smoothed(self, targets: Value) -> Value:
        """(1 - s) * targets + s / C; of a head with room for more classes, C are the live ones."""
        smoothing = self._train.label_smoothing
        if not smoothing:
            return targets
        classes = targets.type.shape[1]
        kept = self._emit(Mul(), targets, self._number(1 - smoothing, targets))
        live = live_classes(self._graph)
        if live is None:
            return self._emit(Add(), kept, self._number(smoothing / classes, targets))
        numbers = self._constant(np.arange(classes, dtype=np.int32).reshape(1, classes))
        share = self._emit(Div(), self._number(smoothing, targets), self._cast(live, targets))
        alive = self._cast(self._emit(Less(), numbers, live), targets)
        return self._emit(Add(), kept, self._emit(Mul(), alive, share))

    # -- rows -------------------------------------------------------------------------------------------------------

    def _valid_rows(self) -> Value:
        if self._rows is None:
            reserve(self._graph, ROWS, "the number of valid rows")
            bounds = Bounds(1, self._batch)
            self._rows = self._graph.add_leaf(Role.SCALAR, ROWS, tensor(DType.I32), bounds=bounds)
        return self._rows

    def _mask(self, like: TensorType) -> Value | None:
        """1 for each valid image, 0 for each other; None where there is but one image."""
        if self._batch == 1:
            return None
        numbers = self._constant(np.arange(self._batch, dtype=np.int32))
        return self._emit(Cast(like.dtype.value), self._emit(Less(), numbers, self._valid_rows()))

    def _count(self, like: Value) -> Value | None:
        """How many images are valid."""
        return None if self._batch == 1 else self._cast(self._valid_rows(), like)

    # -- small things -----------------------------------------------------------------------------------------------

    def _label_leaf(self, name: str, kind: TensorType, bounds: Bounds | None = None) -> Value:
        reserve(self._graph, name, "the label input")
        return self._graph.add_leaf(Role.INPUT, name, kind, bounds=bounds)

    def _full(self, value: Value) -> Value:
        """Half floats are for storage: sums of a loss are taken in f32."""
        half = value.type.dtype in (DType.F16, DType.BF16)
        return self._emit(Cast(DType.F32.value), value) if half else value

    def _scaled(self, value: Value, factor: float) -> Value:
        return value if factor == 1.0 else self._emit(Mul(), value, self._number(factor, value))

    def _cast(self, value: Value, like: Value) -> Value:
        return self._emit(Cast(like.type.dtype.value), value)

    def _number(self, number: float, like: Value) -> Value:
        return self._constant(np.array(number, like.type.dtype.numpy))

    def _constant(self, array: np.ndarray) -> Value:
        return self._graph.constant(array, "loss.constant")

    def _emit(self, op: Op, *operands: Value) -> Value:
        return self._graph.emit1(op, *operands)


class WholeBatchLoss(LossBuilder):
    """Every row counts: where images are mixed before statistics are taken, none can be left out of the loss alone."""

    def _mask(self, like: TensorType) -> Value | None:
        return None

    def _count(self, like: Value) -> Value | None:
        return None if self._batch == 1 else self._number(self._batch, like)


def refusal(name: str, output: Value, batch: int) -> UserError:
    return UserError(
        "E0302",
        f"the loss needs one score for each class: output `{name}` is {output.type}, not [{batch},classes]",
        where=f"output `{name}`",
        hint="the loss is taken on the first output of the model; `class_axis` says where its classes stand",
    )


def _op(value: Value) -> Op | None:
    return None if value.producer is None else value.producer.op


def _before(value: Value, kind: type[Op]) -> Value:
    """What an op of this kind made `value` of, if one did."""
    return value.producer.inputs[0] if isinstance(_op(value), kind) else value


def _before_softmax(output: Value, batch: int) -> Value:
    """The logits of a final softmax over all scores of an image, perhaps with a logarithm or reshapes behind it."""
    before = output = _before_log_softmax(output)
    while isinstance(_op(before), Reshape | Log):
        before = before.producer.inputs[0]
    op, shape = _op(before), before.type.shape
    if isinstance(op, Softmax) and op.axis and shape[op.axis] * batch == before.type.size and shape[0] == batch:
        return before.producer.inputs[0]
    return output


def _before_log_softmax(value: Value) -> Value:
    """x, where `value` is x - max(x) - log(sum(exp(x - max(x)))): frontends write a logarithmic softmax so."""
    if isinstance(_op(value), Sub) and isinstance(_op(value.producer.inputs[1]), Log):
        shifted = value.producer.inputs[0]
        if isinstance(_op(shifted), Sub) and isinstance(_op(shifted.producer.inputs[1]), ReduceMax):
            return shifted.producer.inputs[0]
    return value
