"""Pass `expand_batch_norm`: a batch norm of its batch becomes the statistics, and elementwise nodes that fuse.

    y = (x - mean) * (gamma / sqrt(variance + epsilon)) + beta

Only now: `derive_gradients` has seen it as one op, whose gradient is shorter than that of its parts.

Requires GRADIENTS. Ensures STATISTICS_TAKEN. Breaks CANONICAL, CONSTANTS_FOLDED.
"""

from __future__ import annotations

import numpy as np

from edgec.compiler.passbase import Options
from edgec.graph.ir import Graph, Module, Node, Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.base import Op
from edgec.graph.ops.batch_norm_train import BatchNormTrain
from edgec.graph.ops.div import Div
from edgec.graph.ops.moments import Moments
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.sqrt import Sqrt
from edgec.graph.ops.sub import Sub


def expand_batch_norm(module: Module, options: Options) -> bool:
    changed = False
    for graph in module.programs.values():
        for node in [node for node in graph.nodes if isinstance(node.op, BatchNormTrain)]:
            _expand(graph, node)
            changed = True
    return changed


def _expand(graph: Graph, node: Node) -> None:
    x, gamma, beta, *weights = node.inputs
    per_channel = (x.type.shape[1],) + (1,) * (x.type.rank - 2)

    def emit(op: Op, *operands: Value) -> Value:
        return graph.emit1(op, *operands, source=node.source, before=node)

    def number(value: float) -> Value:
        return graph.constant(np.array(value, x.type.dtype.numpy))

    def spread(vector: Value) -> Value:
        return emit(Reshape(per_channel), vector)

    mean, variance = graph.emit(Moments(node.op.axes(x.type)), x, *weights, source=node.source, before=node)
    deviation = emit(Sqrt(), emit(Add(), variance, number(node.op.epsilon)))
    scale = emit(Mul(), emit(Div(), number(1.0), deviation), gamma)
    # The mean goes before the product: far from zero, x * scale would lose what is left of it.
    scaled = emit(Mul(), emit(Sub(), x, spread(mean)), spread(scale))
    names = [value.name for value in node.outputs]
    made = (emit(Add(), scaled, spread(beta)), mean, variance)
    for old, new in zip(node.outputs, made, strict=True):
        graph.replace_uses(old, new)
    graph.remove(node)
    for value, name in zip(made, names, strict=True):
        graph.rename(value, name)
