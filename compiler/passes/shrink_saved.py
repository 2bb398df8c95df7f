"""Pass `shrink_saved`: what is kept from the forward part of `train` for its backward part takes the fewest bytes.

Elementwise ops and moves cost next to nothing, so a result of theirs need not be kept where its operands are: a
hard-swish comes back from its argument, a weight scaled by a batch norm from the weight, an image as floats from its
bytes. Which values to keep is a minimum cut: from the leaves and the results of all other ops to the readers behind the
guard, each value has the capacity of its bytes (Zheng et al., functorch's min-cut partitioner, 2022). Among equal cuts
the one that computes least again is taken.

Requires UPDATES, NO_DEAD; ensures SAVED_SHRUNK.
"""

from __future__ import annotations

from collections.abc import Iterable

from edgec.compiler.memory.min_cut import SINK, SOURCE, Network
from edgec.compiler.passbase import Options
from edgec.compiler.recompute import forward_nodes, recompute
from edgec.graph.ir import Graph, Module, Node, Role, Value
from edgec.graph.ops.broadcast_to import BroadcastTo
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.slice import Slice
from edgec.graph.ops.transpose import Transpose

_MOVES = (BroadcastTo, Reshape, Slice, Transpose)


def shrink_saved(module: Module, options: Options) -> bool:
    graph = module.programs.get("train")
    return graph is not None and bool(recompute(graph, cheaper_again(graph)))


def cheaper_again(graph: Graph) -> set[Value]:
    """The values of a train program's forward part that are not worth their bytes until the backward part."""
    forward = forward_nodes(graph)
    nodes = [node for node in graph.nodes if node in forward]
    results = set(graph.results())
    network = Network()
    entries: dict[Value, int] = {}
    exits: dict[Value, int] = {}
    for value in _values(graph, nodes):
        entries[value], exits[value] = network.vertex(), network.vertex()
        network.connect(entries[value], exits[value], 0 if _stays(value, results) else value.type.bytes)
        if value.producer is not None and is_cheap(value.producer):
            for operand in value.producer.inputs:
                network.connect(exits[operand], entries[value])
        else:
            network.connect(SOURCE, entries[value])
        if any(reader not in forward for reader, _ in value.uses):
            network.connect(exits[value], SINK)
    behind = network.sink_side()
    return {value for value, entry in entries.items() if entry in behind}


def is_cheap(node: Node) -> bool:
    return node.op.elementwise or isinstance(node.op, _MOVES)


def _values(graph: Graph, nodes: Iterable[Node]) -> Iterable[Value]:
    yield from graph.leaves.values()
    for node in nodes:
        yield from node.outputs


def _stays(value: Value, results: set[Value]) -> bool:
    """Whether a value has its memory for the whole program anyway. An input has it until its last reader."""
    return value in results or value.role in (Role.PARAM, Role.STATE, Role.CONSTANT, Role.SCALAR)
