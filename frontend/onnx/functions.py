"""What a model would grow to if its functions were inlined: known before anything is inlined.

A file of a kilobyte can hold functions that call one another twice each, or themselves; the inliner would run until the
memory or the stack is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onnx import FunctionProto, ModelProto, NodeProto

from edgec.graph.errors import UserError

MAX_NODES = 1_000_000
MAX_DEPTH = 50

_Key = tuple[str, str, str]


def check_functions(model: ModelProto, where: str) -> bool:
    """Whether the model calls functions of its own; UserError E0103 if they are recursive, too deep or too large."""
    bodies = {(f.domain, f.name, f.overload): f for f in model.functions}
    sizes: dict[_Key, int] = {}

    def size(key: _Key, callers: tuple[_Key, ...]) -> int:
        if key in callers or len(callers) > MAX_DEPTH:
            kind = "recursive" if key in callers else "nested too deeply"
            raise UserError("E0103", f"function `{key[1]}` is {kind}", where=where)
        if key not in sizes:
            sizes[key] = total(bodies[key], (*callers, key))
        return sizes[key]

    def total(graph: FunctionProto | Iterable[NodeProto], callers: tuple[_Key, ...]) -> int:
        nodes = graph.node if isinstance(graph, FunctionProto) else graph
        count = 0
        for node in _all_nodes(nodes):
            key = (node.domain, node.op_type, node.overload)
            count += size(key, callers) if key in bodies else 1
            if count > MAX_NODES:
                raise UserError("E0103", f"the model has more than {MAX_NODES} nodes", where=where)
        return count

    total(model.graph.node, ())
    return bool(sizes)


def _all_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """The nodes, and those of the subgraphs in their attributes."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _all_nodes(graph.node)
