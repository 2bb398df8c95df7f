"""Pass `fold_constants`: a node whose operands are all constants is replaced by its result.

Parameters are not constants, even frozen ones: they keep the names and values of the source model. Large tensors of
repeated numbers stay nodes.

Ensures CONSTANTS_FOLDED.
"""

from __future__ import annotations

import numpy as np

from edgec.compiler.passbase import Options
from edgec.graph.ir import Graph, Module, Node, Role
from edgec.graph.ops.broadcast_to import BroadcastTo

_LARGE = 4096  # bytes


def fold_constants(module: Module, options: Options) -> bool:
    changed = False
    for graph in module.programs.values():
        for node in list(graph.nodes):
            if node.inputs and all(value.role is Role.CONSTANT for value in node.inputs) and not _is_fill(node):
                _fold(graph, node)
                changed = True
    return changed


def _is_fill(node: Node) -> bool:
    """A large tensor of few numbers, repeated: made at run time rather than carried in the artifact."""
    return isinstance(node.op, BroadcastTo) and node.output.type.bytes > max(_LARGE, 2 * node.inputs[0].type.bytes)


def _fold(graph: Graph, node: Node) -> None:
    with np.errstate(all="ignore"):  # infinities are values like any other
        arrays = node.op.reference(*(value.data for value in node.inputs))
    folded = [graph.constant(array, value.name) for value, array in zip(node.outputs, arrays, strict=True)]
    names = [value.name for value in node.outputs]
    for value, constant in zip(node.outputs, folded, strict=True):
        graph.replace_uses(value, constant)
    operands = dict.fromkeys(node.inputs)
    graph.remove(node)
    for constant, name in zip(folded, names, strict=True):
        graph.rename(constant, name)
    for operand in operands:
        if not operand.uses and not graph.is_result(operand):
            graph.remove_leaf(operand)
