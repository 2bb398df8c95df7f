"""Computing values of the forward part a second time, behind the guard, so that they need not be kept until then.

The copies are the same ops on the same values, hence the same bits. Each stands right before its first reader.
"""

from __future__ import annotations

from collections.abc import Collection

from edgec.compiler.rewrite import remove_dead_nodes
from edgec.graph.ir import Graph, Node, Value
from edgec.graph.ops.compress import Compress
from edgec.graph.ops.decompress import Decompress
from edgec.graph.ops.inside_bits import InsideBits
from edgec.graph.ops.slice import Slice

PACKS = InsideBits | Slice | Compress
AGAIN = ".again"  # of the names of copies


def forward_nodes(graph: Graph) -> set[Node]:
    """The forward part of a train program: what the loss depends on, and what packs values of that for later."""
    return with_packs(graph, graph.ancestors([graph.outputs[graph.loss]]))


def with_packs(graph: Graph, nodes: set[Node]) -> set[Node]:
    """`nodes`, and what packs their results for later (bits, channels, lossy forms): it runs while they are there."""
    found = set(nodes)
    for pack in graph.nodes:
        if not isinstance(pack.op, PACKS) or _is_copy(pack) or pack.inputs[0].producer not in found:
            continue
        stack = [pack]
        while stack:  # scales of a lossy form, too
            node = stack.pop()
            if node not in found:
                found.add(node)
                stack += [value.producer for value in node.inputs if value.producer is not None]
    return found


def _is_copy(node: Node) -> bool:
    return AGAIN in node.outputs[0].name


def kept_values(graph: Graph, forward: set[Node]) -> list[Value]:
    """What the forward part computes and a node behind it reads, in the order of computation."""
    values = (value for node in graph.nodes if node in forward for value in node.outputs)
    return [value for value in values if any(reader not in forward for reader, _ in value.uses)]


def recompute(graph: Graph, again: Collection[Value]) -> set[Node]:
    """Let nodes behind the guard read copies of the values in `again`, which the forward part computes.

    A copy reads copies of those operands that are in `again` too, and keeps the others alive. Values that nobody behind
    the guard needs get no copy. What was compressed comes back as it was before. The nodes that were added.
    """
    forward = forward_nodes(graph)
    chosen = set(again)
    made: dict[Value, Value] = {}
    unpacked = [node for node in graph.nodes if isinstance(node.op, Decompress) and node.inputs[0] in chosen]
    for node in unpacked:
        graph.replace_uses(node.output, node.inputs[0].producer.inputs[0])
    if unpacked:
        remove_dead_nodes(graph)

    def copy(value: Value, reader: Node) -> Value:
        if value not in made:
            node = value.producer
            operands = [copy(v, reader) if v in chosen else v for v in node.inputs]
            names = [v.name + AGAIN for v in node.outputs]
            copies = graph.emit(node.op, *operands, names=names, source=node.source, before=reader)
            made.update(zip(node.outputs, copies, strict=True))
        return made[value]

    for node in [node for node in graph.nodes if node not in forward]:
        for slot, value in enumerate(node.inputs):
            if value in chosen:
                graph.set_input(node, slot, copy(value, node))
    remove_dead_nodes(graph)  # packs that are made again, and so not in the forward part
    return {value.producer for value in made.values()}
