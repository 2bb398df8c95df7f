"""What schemes speak of, found in a graph: layers, their biases, norms, and blocks of repeated names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from edgec.compiler.rewrite import param_behind
from edgec.graph.ir import Graph, Node, Role, Value
from edgec.graph.ops.add import Add
from edgec.graph.ops.batch_norm import BatchNorm
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.div import Div
from edgec.graph.ops.layer_norm import LayerNorm
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.mul import Mul
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.rms_norm import RmsNorm
from edgec.graph.ops.sub import Sub

# Where a name counts: `layer.11.output`, `features/3/conv`; else at the end of a word, as in `conv12.weight`.
_INDICES = (re.compile(r"(?:^|[./_])(\d+)(?=[./_]|$)"), re.compile(r"[A-Za-z](\d+)(?=[./_]|$)"))


def candidates(graph: Graph) -> set[Value]:
    """Float parameters that the outputs depend on, without statistics: all that can be trained."""
    statistics = {
        param_behind(value) for node in graph.nodes if isinstance(node.op, BatchNorm) for value in node.inputs[3:]
    }
    read = {value for node in graph.ancestors(graph.results()) for value in node.inputs}
    return {p for p in graph.by_role(Role.PARAM) if p.type.dtype.is_float and p in read and p not in statistics}


def layers(graph: Graph, known: set[Value]) -> list[Node]:
    """Convolutions and products whose weight is one of `known`, in the order in which they run; the head is last."""
    live = graph.ancestors(graph.results())
    return [node for node in graph.nodes if node in live and weight_of(node) in known]


def weight_of(node: Node) -> Value | None:
    """The parameter that a convolution or product multiplies with."""
    if isinstance(node.op, Conv2d | Conv2dInputGrad):
        return param_behind(node.inputs[1])
    if isinstance(node.op, MatMul):
        return param_behind(node.inputs[1]) or param_behind(node.inputs[0])
    return None


def followers(node: Node) -> Iterator[tuple[Value, bool]]:
    """Bias and scale right behind a node, and the gamma and beta of the batch norm that follows, where nobody else
    reads; each with whether it is added.
    """
    value = node.outputs[0]
    while len({reader for reader, _ in value.uses}) == 1:
        reader, slot = value.uses[0]
        if isinstance(reader.op, BatchNorm) and slot == 0:
            for param, added in zip(map(param_behind, reader.inputs[1:3]), (False, True), strict=True):
                if param is not None:
                    yield param, added
            return
        if isinstance(reader.op, Add | Sub | Mul | Div) and len(value.uses) == 1:
            other = param_behind(reader.inputs[1 - slot])
            if other is None:
                return
            yield other, isinstance(reader.op, Add | Sub)
        elif not isinstance(reader.op, Reshape):
            return
        value = reader.output


def norms(graph: Graph) -> list[set[Value]]:
    """The scales and shifts of every norm that has some, in the order in which they run.

    Group and instance norms are layer norms of another shape, with scale and shift behind them.
    """
    found = []
    for node in graph.nodes:
        if isinstance(node.op, BatchNorm):
            params = {param_behind(value) for value in node.inputs[1:3]}
        elif isinstance(node.op, LayerNorm | RmsNorm):
            params = {param_behind(value) for value in node.inputs[1:]} | {param for param, _ in followers(node)}
        else:
            continue
        if params := {param for param in params if param is not None}:
            found.append(params)
    return found


def biases(graph: Graph) -> set[Value]:
    """Vectors that are added to an activation, and the beta of every batch norm."""
    found: set[Value | None] = set()
    for node in graph.nodes:
        if isinstance(node.op, BatchNorm):
            found.add(param_behind(node.inputs[2]))
        elif isinstance(node.op, Add | Sub):
            for value, other in (node.inputs, node.inputs[::-1]):
                param = param_behind(value)
                if (
                    param is not None
                    and param_behind(other) is None
                    and param.type.size == max(param.type.shape, default=1)
                ):
                    found.add(param)
    return {param for param in found if param is not None}


def blocks(graph: Graph, known: set[Value]) -> list[str]:
    """Prefixes of names that count through a repeated part of the model, in the order in which they first run.

    `encoder.layer.0`, `encoder.layer.1`, ...: a word and a number that other parameters have with another number.
    """
    order = list(first_reads(graph, known))
    for index in _INDICES:
        numbers: dict[str, dict[str, None]] = {}
        for param in order:
            if found := index.search(param.name):
                numbers.setdefault(param.name[: found.start(1)], {})[param.name[: found.end(1)]] = None
        repeated = {prefix for prefixes in numbers.values() if len(prefixes) > 1 for prefix in prefixes}
        if repeated:
            prefixes = (_prefix(param.name, repeated) for param in order)
            return list(dict.fromkeys(prefix for prefix in prefixes if prefix is not None))
    return []


def in_block(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and not name[len(prefix) : len(prefix) + 1].isdigit()


def first_reads(graph: Graph, known: Iterable[Value]) -> dict[Value, int]:
    """The position of the first node that reads each parameter, in that order."""
    places: dict[Value, int] = {}
    wanted = set(known)
    for position, node in enumerate(graph.nodes):
        for value in node.inputs:
            if value in wanted and not _is_reshaped(node):
                places.setdefault(value, position)
            elif (param := param_behind(value)) in wanted:
                places.setdefault(param, position)
    return places


def _is_reshaped(node: Node) -> bool:
    """Shapes and transpositions of parameters stand anywhere before their reader."""
    return param_behind(node.outputs[0]) is not None


def _prefix(name: str, prefixes: set[str]) -> str | None:
    return next((prefix for prefix in prefixes if in_block(name, prefix)), None)
