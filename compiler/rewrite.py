"""Small steps that several passes take on a graph."""

from __future__ import annotations

from edgec.graph.errors import UserError
from edgec.graph.ir import Graph, Node, Role, Value
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.transpose import Transpose


def replace_node(graph: Graph, node: Node, value: Value, *, rename: bool) -> None:
    """`value` takes the place of the node's only output, with `rename` its name too; the node goes."""
    name = node.output.name
    graph.replace_uses(node.output, value)
    graph.remove(node)
    if rename:
        graph.rename(value, name)


def reshape(graph: Graph, value: Value, shape: tuple[int, ...], *, before: Node | None = None) -> Value:
    """`value` under another shape: no node where it has that shape, and never a reshape of a reshape."""
    while value.producer is not None and isinstance(value.producer.op, Reshape) and value.type.shape != shape:
        value = value.producer.inputs[0]
    if value.type.shape == shape:
        return value
    source = value.producer.source if value.producer is not None else ""
    return graph.emit1(Reshape(shape), value, source=source, before=before)


def remove_dead_nodes(graph: Graph) -> bool:
    """Remove every node that no result depends on."""
    live = graph.ancestors(graph.results())
    dead = [node for node in graph.nodes if node not in live]
    for node in reversed(dead):
        graph.remove(node)
    return bool(dead)


def param_behind(value: Value) -> Value | None:
    """The parameter that `value` is, perhaps under another shape or order of axes."""
    while value.producer is not None and isinstance(value.producer.op, Reshape | Transpose):
        value = value.producer.inputs[0]
    return value if value.role is Role.PARAM else None


def describe(node: Node) -> str:
    """A node as errors quote it: where it came from, else its op and first result."""
    return f"node `{node.source}`" if node.source else f"{node.op.name} that computes `{node.outputs[0].name}`"


def reserve(graph: Graph, name: str, what: str) -> None:
    """Make `name` free for a leaf of ours. What the compiler named gives way; what the model named does not (E0302)."""
    for value in list(graph.values()):
        if value.name != name:
            continue
        if value.role in (Role.INPUT, Role.PARAM, Role.STATE):
            raise UserError(
                "E0302",
                f"`{name}` is the name of {what}, and of one of the model's leaves: {value.role.value} {value}",
                hint="rename it in the model; the label input's name can be chosen with `labels`",
            )
        graph.rename(value, graph.fresh_name(f"{name}.1"))
