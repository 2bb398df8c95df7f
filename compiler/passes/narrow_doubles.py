"""Pass `narrow_doubles`: what a program makes of other types in double precision it makes in single.

No kernel computes in f64. Exporters leave doubles where a Python number met a table; constants are folded in double
precision before they are rounded. A program that is fed doubles stays as it is, and is refused: whoever does that means
it.
"""

from __future__ import annotations

from edgec.compiler.passbase import Options
from edgec.graph.ir import Graph, Module, Role, Value
from edgec.graph.ops.cast import Cast
from edgec.graph.types import DType, TensorType


def narrow_doubles(module: Module, options: Options) -> bool:
    changed = False
    for name, graph in module.programs.items():
        doubles = [value for value in graph.values() if value.type.dtype is DType.F64]
        if doubles and not any(value.role in (Role.INPUT, Role.SCALAR, Role.STATE) for value in doubles):
            module.programs[name] = _narrowed(graph)
            changed = True
    return changed


def _narrowed(graph: Graph) -> Graph:
    copy = Graph(graph.name)
    twins: dict[Value, Value] = {}
    for leaf in graph.leaves.values():
        kind, data = leaf.type, leaf.data
        if kind.dtype is DType.F64:
            kind = TensorType(DType.F32, kind.shape)
            data = None if data is None else data.astype(kind.dtype.numpy)
        twins[leaf] = copy.add_leaf(leaf.role, leaf.name, kind, data=data, trainable=leaf.trainable, bounds=leaf.bounds)
    for node in graph.nodes:
        op, operands = node.op, [twins[value] for value in node.inputs]
        if isinstance(op, Cast):
            op = Cast(DType.F32.value) if op.dtype is DType.F64 else op
            if operands[0].type.dtype is op.dtype and operands[0].role is None:
                twins[node.output] = operands[0]
                continue
        outputs = copy.emit(op, *operands, names=[value.name for value in node.outputs], source=node.source)
        twins.update(zip(node.outputs, outputs, strict=True))
    copy.outputs = {name: twins[value] for name, value in graph.outputs.items()}
    copy.updates = {twins[target]: twins[value] for target, value in graph.updates.items()}
    copy.loss, copy.guard = graph.loss, graph.guard
    return copy
