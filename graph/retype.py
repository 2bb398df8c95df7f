"""A program in other element types: what double precision and single precision copies are made by."""

from __future__ import annotations

from collections.abc import Mapping

from edgec.graph.ir import Graph, Value
from edgec.graph.ops.cast import Cast
from edgec.graph.types import DType, TensorType


def retyped(graph: Graph, types: Mapping[DType, DType]) -> Graph:
    """A copy in which leaves and casts of the types that `types` names have those it maps them to.

    What is computed from them follows by inference, and data is rounded. A cast may become one that changes nothing.
    """
    copy = Graph(graph.name)
    twins: dict[Value, Value] = {}
    for leaf in graph.leaves.values():
        kind = TensorType(types.get(leaf.type.dtype, leaf.type.dtype), leaf.type.shape)
        data = None if leaf.data is None else leaf.data.astype(kind.dtype.numpy, copy=False)
        twins[leaf] = copy.add_leaf(leaf.role, leaf.name, kind, data=data, trainable=leaf.trainable, bounds=leaf.bounds)
    for node in graph.nodes:
        op = Cast(types.get(node.op.dtype, node.op.dtype).value) if isinstance(node.op, Cast) else node.op
        operands = [twins[value] for value in node.inputs]
        outputs = copy.emit(op, *operands, names=[value.name for value in node.outputs], source=node.source)
        twins.update(zip(node.outputs, outputs, strict=True))
    copy.outputs = {name: twins[value] for name, value in graph.outputs.items()}
    copy.updates = {twins[target]: twins[value] for target, value in graph.updates.items()}
    copy.loss, copy.guard, copy.counts = graph.loss, graph.guard, dict(graph.counts)
    return copy
