"""Pass `train_batch_norm`: with `batch_norm = "train"`, norms of `train` take the statistics of their batch.

They also move the running statistics, as torch does: running = (1 - momentum) * running + momentum * of the batch, the
variance divided by one less than the number of elements. `infer` and `eval` normalise by the running statistics, which
are read anew in every run: their norms are folded live. Where the source model counts batches, the state
`batch_norm/batches` counts on.

Requires FROZEN_NORMS_FOLDED, LOSS. Ensures NO_BATCH_NORM.
"""

from __future__ import annotations

import numpy as np

from edgec.compiler.passbase import Options
from edgec.compiler.passes.fold_batch_norm import fold_all
from edgec.compiler.rewrite import describe, replace_node, reserve
from edgec.graph.errors import UserError
from edgec.graph.ir import Graph, Module, Node, Role, Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.batch_norm import BatchNorm
from edgec.graph.ops.batch_norm_train import BatchNormTrain
from edgec.graph.ops.mul import Mul
from edgec.graph.types import DType, tensor

BATCHES = "batch_norm/batches"


def train_batch_norm(module: Module, options: Options) -> bool:
    if options.train is None or options.train.batch_norm != "train":
        return False
    graph = module.programs["train"]
    for node in [node for node in graph.nodes if isinstance(node.op, BatchNorm)]:
        _take_statistics(graph, node)
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


def _take_statistics(graph: Graph, node: Node) -> None:
    x, gamma, beta, *running = node.inputs
    elements = x.type.size // x.type.shape[1]
    if elements < 2:
        raise UserError(
            "E0302",
            "the statistics of a batch need more than one value for each channel",
            where=describe(node),
            hint='train with a larger batch, or with batch_norm = "frozen"',
        )
    y, *batch = graph.emit(BatchNormTrain(node.op.epsilon), x, gamma, beta, source=node.source, before=node)
    for leaf, value, factor in zip(running, batch, (1.0, elements / (elements - 1)), strict=True):
        if leaf.role is Role.PARAM:
            _move(graph, node, leaf, value, factor)
    replace_node(graph, node, y, rename=True)


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
