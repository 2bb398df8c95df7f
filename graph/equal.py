"""Structural equality of programs: the same leaves, results and computation, whatever inner values are called.

Names of leaves, outputs and the program are part of what a program is: users and other programs meet them. Names of
computed values and the sources of nodes are not. Nodes must stand in the same order: a pass that only reorders has
changed the program.
"""

from __future__ import annotations

import numpy as np

from edgec.graph.ir import Graph, Module, Node, Role, Value
from edgec.graph.text import attributes_text, leaf_text, node_text, value_name


def graph_difference(a: Graph, b: Graph) -> str | None:
    """The first difference between two programs, readable, or None if they are equal.

    Leaf data is compared to the bit. A constant is inner too: it matches one of another name, not one of other data.
    """
    if a.name != b.name:
        return f"the programs are called `{a.name}` and `{b.name}`"
    return _leaf_difference(a, b) or _body_difference(a, b)


def module_difference(a: Module, b: Module) -> str | None:
    """The first difference between two modules, or None; the order of programs is part of a module."""
    if list(a.programs) != list(b.programs):
        return f"the programs are {', '.join(a.programs) or 'none'} and {', '.join(b.programs) or 'none'}"
    for name, graph in a.programs.items():
        if difference := graph_difference(graph, b.programs[name]):
            return f"in program `{name}`: {difference}"
    return None


def _leaf_difference(a: Graph, b: Graph) -> str | None:
    """Leaves other than constants, by name and in order: their order is that of a program's arguments."""
    left, right = (
        {leaf.name: leaf for leaf in graph.leaves.values() if leaf.role is not Role.CONSTANT} for graph in (a, b)
    )
    for name in sorted(left.keys() ^ right.keys()):
        side = "first" if name in left else "second"
        return f"only the {side} has the leaf `{leaf_text((left if name in left else right)[name])}`"
    for name, leaf in left.items():
        if not _same_leaf(leaf, right[name]):
            return f"leaf `{leaf_text(leaf)}` is `{leaf_text(right[name])}` in the second"
    if list(left) != list(right):
        return f"leaves stand in another order: {', '.join(left)} and {', '.join(right)}"
    return None


def _body_difference(a: Graph, b: Graph) -> str | None:
    twin: dict[Value, Value] = {}  # of the first program's computed values
    for index, (left, right) in enumerate(zip(a.nodes, b.nodes, strict=False)):
        if problem := _node_difference(left, right, twin):
            return f"node {index}: {problem}\n  {node_text(left).text}\n  {node_text(right).text}"
        twin.update(zip(left.outputs, right.outputs, strict=True))
    if len(a.nodes) != len(b.nodes):
        longer, side = (a, "first") if len(a.nodes) > len(b.nodes) else (b, "second")
        extra = longer.nodes[min(len(a.nodes), len(b.nodes))]
        return f"{len(a.nodes)} nodes and {len(b.nodes)}; only the {side} has\n  {node_text(extra).text}"
    tables = (
        ("output", a.outputs, b.outputs),
        ("update", {t.name: v for t, v in a.updates.items()}, {t.name: v for t, v in b.updates.items()}),
    )
    for what, left, right in tables:
        if list(left) != list(right):
            return f"{what}s are {', '.join(left) or 'none'} and {', '.join(right) or 'none'}"
        for name in left:
            if not _same_value(left[name], right[name], twin):
                return f"{what} `{name}` is {value_name(left[name])} and {value_name(right[name])}"
    for name in a.outputs:
        if a.counts.get(name) != b.counts.get(name):
            return f"output `{name}` is counted differently"
    if a.loss != b.loss:
        return f"the loss is {a.loss!r} and {b.loss!r}"
    if a.guard != b.guard:
        return f"the guard watches {a.guard!r} and {b.guard!r}"
    return None


def _node_difference(a: Node, b: Node, twin: dict[Value, Value]) -> str | None:
    if a.op.name != b.op.name:
        return f"{a.op.name} and {b.op.name}"
    if attributes_text(a.op) != attributes_text(b.op):  # as text, in which NaN equals NaN
        return "attributes differ"
    if [v.type for v in a.outputs] != [v.type for v in b.outputs]:
        return "result types differ"
    if len(a.inputs) != len(b.inputs):
        return f"{len(a.inputs)} operands and {len(b.inputs)}"
    for slot, (left, right) in enumerate(zip(a.inputs, b.inputs, strict=True)):
        if not _same_value(left, right, twin):
            return f"operand {slot} differs"
    return None


def _same_value(a: Value, b: Value, twin: dict[Value, Value]) -> bool:
    if a.role is Role.CONSTANT:
        return b.role is Role.CONSTANT and _same_leaf(a, b)
    if a.role is not None:
        return b.role is a.role and b.name == a.name
    return twin.get(a) is b


def _same_leaf(a: Value, b: Value) -> bool:
    """Equal but for the name."""
    alike = (a.type, a.role, a.trainable, a.bounds) == (b.type, b.role, b.trainable, b.bounds)
    return alike and _same_data(a.data, b.data)


def _same_data(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    if a is b or a is None or b is None:
        return a is b
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
