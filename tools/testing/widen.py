"""Programs in another precision: double, where no rounding moves an activation across a kink, and back to single."""

from __future__ import annotations

from edgec.graph.ir import Graph, Module, Value
from edgec.graph.ops.cast import Cast
from edgec.graph.types import DType, TensorType


def widened(module: Module) -> Module:
    """A copy in which f32 leaves and casts are f64, and with them all that is computed; also by passes that run later.

    Interpreting an f32 program in float64 is not the same: constants that a pass computes are still rounded to f32.
    """
    return _converted(module, DType.F32, DType.F64)


def narrowed(module: Module) -> Module:
    """A copy in which every f64 leaf is f32, and with them all that is computed."""
    return _converted(module, DType.F64, DType.F32)


def _converted(module: Module, old: DType, new: DType) -> Module:
    return Module({name: _with_leaves(graph, old, new) for name, graph in module.programs.items()})


def _with_leaves(graph: Graph, old: DType, new: DType) -> Graph:
    copy = Graph(graph.name)
    twins: dict[Value, Value] = {}
    for leaf in graph.leaves.values():
        kind = TensorType(new, leaf.type.shape) if leaf.type.dtype is old else leaf.type
        data = leaf.data.astype(kind.dtype.numpy) if leaf.data is not None else None
        twins[leaf] = copy.add_leaf(leaf.role, leaf.name, kind, data=data, trainable=leaf.trainable, bounds=leaf.bounds)
    for node in graph.nodes:
        operands = [twins[value] for value in node.inputs]
        op = Cast(new.value) if node.op == Cast(old.value) else node.op
        outputs = copy.emit(op, *operands, names=[v.name for v in node.outputs], source=node.source)
        twins.update(zip(node.outputs, outputs, strict=True))
    copy.outputs = {name: twins[value] for name, value in graph.outputs.items()}
    copy.updates = {twins[target]: twins[value] for target, value in graph.updates.items()}
    copy.loss, copy.guard = graph.loss, graph.guard
    return copy
