"""In which order values that a training step keeps are given up, where a memory budget has no room for all of them.

Those that give most bytes for a multiply-add that it takes to compute them again come first. A run of values that come
back one from another is alive as a whole when its backward part begins, so runs have a limit.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgec.compiler.recompute import forward_nodes, kept_values
from edgec.graph.ir import Graph, Node, Value
from edgec.graph.ops.compress import Compress
from edgec.graph.ops.decompress import Decompress
from edgec.graph.ops.inside_bits import InsideBits

ELEMENTWISE = 16  # multiply-adds that moving four bytes through memory is worth


@dataclass(frozen=True)
class _Cost:
    """What it takes to have a value again: nodes that nobody keeps the results of, and kept values they read."""

    nodes: frozenset[Node]
    reads: frozenset[Value]

    @property
    def macs(self) -> int:
        total = 0
        for node in self.nodes:
            total += node.cost.macs + ELEMENTWISE * node.cost.bytes // 4
        return total


class RecomputeCandidates:
    """The kept values of a train program, those that give most bytes for a multiply-add first."""

    def __init__(self, graph: Graph):
        forward = forward_nodes(graph)
        results = set(graph.results())
        kept = (value for value in kept_values(graph, forward) if value not in results)
        self._kept = [value for value in kept if not isinstance(value.producer.op, InsideBits) and not _scales(value)]
        costs = self._costs(graph, forward)
        self._costs_of = {value: costs[value] for value in self._kept}
        place = {value: index for index, value in enumerate(self._kept)}
        gain = {value: value.type.bytes / max(costs[value].macs, 1) for value in self._kept}
        self._order = sorted(self._kept, key=lambda value: (-gain[value], place[value]))
        self.total = sum(value.type.bytes for value in self._kept)

    def _costs(self, graph: Graph, forward: set[Node]) -> dict[Value, _Cost]:
        kept, costs = set(self._kept), {}
        for node in (node for node in graph.nodes if node in forward):
            nodes, reads = {node}, set()
            for operand in node.inputs:
                if operand in kept:
                    reads.add(operand)
                elif operand.producer is not None:
                    nodes |= costs[operand].nodes
                    reads |= costs[operand].reads
            costs.update(dict.fromkeys(node.outputs, _Cost(frozenset(nodes), frozenset(reads))))
        return costs

    def below(self, limit: int) -> list[Value]:
        """The values in order, without those that would join others to a run of more than `limit` bytes."""
        run = {value: value for value in self._kept}  # disjoint sets: towards a representative
        size: dict[Value, int] = {}
        readers: dict[Value, list[Value]] = {}
        for value, cost in self._costs_of.items():
            for operand in cost.reads:
                readers.setdefault(operand, []).append(value)

        def find(value: Value) -> Value:
            while run[value] is not value:
                value = run[value]
            return value

        chosen: list[Value] = []
        for value in self._order:
            near = (*self._costs_of[value].reads, *readers.get(value, ()))
            runs = {find(other) for other in near if other in size}
            joined = value.type.bytes + sum(size[other] for other in runs)
            if joined > limit:
                continue
            for other in runs:
                run[other] = value
            for member in (value, *runs):
                size.setdefault(member, 0)
            size[value] = joined
            chosen.append(value)
        return chosen

    def closure(self, values: list[Value]) -> frozenset[str]:
        """Names of `values` and of all that nobody keeps on the way to them."""
        nodes = {node for value in values for node in self._costs_of[value].nodes}
        kept = set(self._kept) - set(values)
        return frozenset(value.name for node in nodes for value in node.outputs if value not in kept)


def _scales(value: Value) -> bool:
    """Whether a value only says how another was compressed: it goes with that."""
    return all(isinstance(node.op, Compress | Decompress) and slot > 0 for node, slot in value.uses)
