"""Pass `recompute_attention`: where the backend computes attention for some rows at a time, `train` keeps no weights.

The backward part of an attention gets the scores and their softmax a second time from q and k, which it reads anyway:
`fuse_attention` makes one group of that and the gradients, in which no matrix of scores is ever whole (Dao,
"FlashAttention-2", 2023, section 3). The copies are the same ops on the same values, hence the same bits.
"""

from __future__ import annotations

from edgec.compiler.attention import is_one_group
from edgec.compiler.passbase import Options
from edgec.compiler.recompute import AGAIN, forward_nodes
from edgec.compiler.schedule import Schedule, TargetSchedules, late_order
from edgec.graph.attention import Attention, Weights, attention_of, gradient_of
from edgec.graph.ir import Graph, Node, Value
from edgec.graph.ops.softmax import Softmax


def recompute_attention(subject: TargetSchedules, options: Options) -> bool:
    schedule = subject.programs.get("train")
    if schedule is None or not schedule.guarded:
        return False
    forward = forward_nodes(schedule.graph)
    softmaxes = [node for node in schedule.graph.nodes if isinstance(node.op, Softmax) and node in forward]
    found = [attention for node in softmaxes if (attention := attention_of(node, forward)) is not None]
    if not found:
        return False
    behind = _computed_twice(schedule.graph, forward)
    changed = any([_recompute(schedule, attention, forward, behind) for attention in found])
    if changed:
        schedule.regroup([node] for node in late_order(schedule))
    return changed


def _computed_twice(graph: Graph, forward: set[Node]) -> dict[Value, Value]:
    """What nodes behind the forward part compute exactly as one in it does, by the value there: q and k in the order
    that products read, as `shrink_saved` leaves them.
    """
    first = {(node.op, tuple(node.inputs)): node for node in graph.nodes if node in forward}
    behind: dict[Value, Value] = {}
    original: dict[Value, Value] = {}
    for node in graph.nodes:
        twin = None if node in forward else first.get((node.op, tuple(original.get(v, v) for v in node.inputs)))
        for value, copy in zip(twin.outputs if twin else (), node.outputs, strict=False):
            behind.setdefault(value, copy)
            original[copy] = value
    return behind


def _recompute(schedule: Schedule, attention: Attention, forward: set[Node], behind: dict[Value, Value]) -> bool:
    """Let the gradients of an attention read copies of its weights, if both parts then are groups for the backend."""
    graph = schedule.graph
    again: dict[Value, Value] = {}
    for node in _read_behind(attention.weights, forward):
        operands = [again.get(value) or behind.get(value, value) for value in node.inputs]
        again[node.output] = graph.emit1(node.op, *operands, name=node.output.name + AGAIN, source=node.source)
    moved = [(*use, value) for value in again for use in value.uses if use[0] not in forward]
    for reader, slot, value in moved:
        graph.set_input(reader, slot, again[value])
    softmax = again[attention.weights.softmax.output].producer if again else None
    gradient = None if softmax is None else gradient_of(softmax)
    if gradient is not None and all(is_one_group(schedule, part) for part in (attention, gradient)):
        return True
    for reader, slot, value in moved:
        graph.set_input(reader, slot, value)
    graph.remove_all([value.producer for value in again.values()])
    return False


def _read_behind(weights: Weights, forward: set[Node]) -> tuple[Node, ...]:
    """The nodes up to the last whose result is read behind the forward part, if the softmax is among them."""
    nodes = weights.nodes
    read = [any(reader not in forward for reader, _ in node.output.uses) for node in nodes]
    count = len(nodes) - read[::-1].index(True) if any(read) else 0
    return nodes[:count] if weights.softmax in nodes[:count] else ()
