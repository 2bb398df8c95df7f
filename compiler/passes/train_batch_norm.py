"""Pass `train_batch_norm`: with `batch_norm = "train"`, norms of `train` take the statistics of their batch.

They also move the running statistics, as torch does: running = (1 - momentum) * running + momentum * of the batch, the
variance divided by one less than the number of elements. Rows that the loss leaves out count in no statistics. `infer`
and `eval` normalise by the running statistics, which are read anew in every run: their norms are folded live. Where the
source model counts batches, the state `batch_norm/batches` counts on.

Requires FROZEN_NORMS_FOLDED, LOSS. Ensures NO_BATCH_NORM.
"""

from __future__ import annotations

import numpy as np

from edgec.compiler.losses import ROWS
from edgec.compiler.passbase import Options
from edgec.compiler.passes.fold_batch_norm import fold_all
from edgec.compiler.rewrite import describe, replace_node, reserve
from edgec.graph.errors import UserError
from edgec.graph.ir import Graph, Module, Node, Role, Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.base import Op
from edgec.graph.ops.batch_norm import BatchNorm
from edgec.graph.ops.batch_norm_train import BatchNormTrain
from edgec.graph.ops.cast import Cast
from edgec.graph.ops.div import Div
from edgec.graph.ops.less import Less
from edgec.graph.ops.maximum import Maximum
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.sub import Sub
from edgec.graph.types import DType, tensor

BATCHES = "batch_norm/batches"


def train_batch_norm(module: Module, options: Options) -> bool:
    if options.train is None or options.train.batch_norm != "train":
        return False
    graph = module.programs["train"]
    rows = next((leaf for leaf in graph.by_role(Role.SCALAR) if leaf.name == ROWS), None)
    for node in [node for node in graph.nodes if isinstance(node.op, BatchNorm)]:
        _take_statistics(graph, node, rows)
    if any(tensor.counts_batches for tensor in module.source.values()):
        _count(graph)
    moved = {leaf.name for leaf in graph.updates}
    for program in module.programs.values():
        for leaf in program.by_role(Role.PARAM):
            leaf.trainable |= leaf.name in moved
    fold_all(module)
    return True


def _count(graph: Graph) -> None:
    reserve(graph, BATCHES, "the number of batches that statistics were taken of")
    batches = graph.add_leaf(Role.STATE, BATCHES, tensor(DType.I32), data=np.zeros((), np.int32))
    one = graph.constant(np.array(1, np.int32))
    graph.updates[batches] = graph.emit1(Add(), batches, one, name=graph.fresh_name(f"{BATCHES}.new"))


def _take_statistics(graph: Graph, node: Node, rows: Value | None) -> None:
    x, gamma, beta, *running = node.inputs
    elements = x.type.size // x.type.shape[1]
    if elements < 2:
        raise UserError(
            "E0302",
            "the statistics of a batch need more than one value for each channel",
            where=describe(node),
            hint='train with a larger batch, or with batch_norm = "frozen"',
        )
    weights = () if rows is None else (_weights(graph, node, rows),)
    operands = (x, gamma, beta, *weights)
    y, *batch = graph.emit(BatchNormTrain(node.op.epsilon), *operands, source=node.source, before=node)
    if rows is not None:
        batch[1] = _unbiased(graph, node, batch[1], rows, elements // x.type.shape[0])
    for leaf, value, factor in zip(
        running, batch, (1.0, elements / (elements - 1) if rows is None else 1.0), strict=True
    ):
        if leaf.role is Role.PARAM:
            _move(graph, node, leaf, value, factor)
    replace_node(graph, node, y, rename=True)


def _weights(graph: Graph, node: Node, rows: Value) -> Value:
    """[N,1,...]: 1/rows for each image that counts, 0 for the others."""
    kind = node.inputs[0].type

    def emit(op: Op, *operands: Value) -> Value:
        return graph.emit1(op, *operands, source=node.source, before=node)

    numbers = graph.constant(np.arange(kind.shape[0], dtype=np.int32))
    counts = emit(Cast(kind.dtype.value), emit(Less(), numbers, rows))
    shares = emit(Div(), counts, emit(Cast(kind.dtype.value), rows))
    return emit(Reshape((kind.shape[0],) + (1,) * (kind.rank - 1)), shares)


def _unbiased(graph: Graph, node: Node, variance: Value, rows: Value, positions: int) -> Value:
    """variance * n / (n - 1) for n = rows * positions elements; of one element, whose variance is 0, that."""

    def emit(op: Op, *operands: Value) -> Value:
        return graph.emit1(op, *operands, source=node.source, before=node)

    def number(value: float) -> Value:
        return graph.constant(np.array(value, variance.type.dtype.numpy))

    elements = emit(Mul(), emit(Cast(variance.type.dtype.value), rows), number(positions))
    others = emit(Maximum(), emit(Sub(), elements, number(1.0)), number(1.0))
    return emit(Mul(), variance, emit(Div(), elements, others))


def _move(graph: Graph, node: Node, leaf: Value, value: Value, factor: float) -> None:
    """`leaf` becomes a mean of itself and `value` * factor; once more for each norm that shares it."""

    def times(operand: Value, number: float) -> Value:
        constant = graph.constant(np.array(number, leaf.type.dtype.numpy))
        return graph.emit1(Mul(), operand, constant, source=node.source, before=node)

    part = node.op.momentum
    kept, added = times(graph.updates.get(leaf, leaf), 1 - part), times(value, part * factor)
    graph.updates[leaf] = graph.emit1(
        Add(), kept, added, name=graph.fresh_name(f"{leaf.name}.new"), source=node.source, before=node
    )
