"""Groups of nodes that grow: a node joins a group that was placed before it, with what it needs ahead of both.

What joins runs on the same side of the guard as the group, and no path leads from the group through a node outside of
it back to the joining node: otherwise the group would have to run before and after that node. Paths include the order
between readers of an old parameter and the node that overwrites it, so a fused update never has to run too early.
Everything the joining node needs moves before the group, if it does not stand there already. What is computed again
and what is not stay apart: a reader of a value that comes back at the start of a segment would else run there, and its
result wait for its turn.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgec.backends.base import Group
from edgec.compiler.passes.commit_updates import reads_what_it_overwrites
from edgec.compiler.schedule import Schedule, make_group, node_predecessors
from edgec.graph.ir import Node
from edgec.runtime.abi import MAX_KERNEL_ARGS

# Operands of a fused group; the rest of a kernel's arguments is left for workspaces.
MAX_GROUP_OPERANDS = MAX_KERNEL_ARGS - 6


class Joining:
    """The groups placed so far, in a valid order; `owner` finds the group of a node."""

    def __init__(self, schedule: Schedule):
        self.schedule = schedule
        self.placed: list[list[Node]] = []
        self.owner: dict[Node, list[Node]] = {}
        self._before = node_predecessors(schedule)
        self._forward = schedule.forward()

    def place(self, nodes: Sequence[Node]) -> None:
        """A group behind all others."""
        group = list(nodes)
        self.placed.append(group)
        self.owner.update(dict.fromkeys(group, group))

    def index(self, group: list[Node]) -> int:
        """Position of a group, searched from the end, where it mostly stands."""
        for index in range(len(self.placed) - 1, -1, -1):
            if self.placed[index] is group:
                return index
        raise ValueError("the group is not placed")

    def join(self, node: Node, group: list[Node]) -> bool:
        """Append `node` to a placed group, if that may be."""
        anchor = group[0]
        if (anchor in self._forward) != (node in self._forward):
            return False
        if (anchor in self.schedule.again) != (node in self.schedule.again):
            return False
        index = self.index(group)
        needed = self._needed(node, group, index)
        if needed is None or not self._lawful(make_group(self.schedule.graph, [*group, node])):
            return False
        tail = [other for other in self.placed[index + 1 :] if not any(other is g for g in needed)]
        self.placed[index:] = [*needed, group, *tail]
        group.append(node)
        self.owner[node] = group
        return True

    def _needed(self, node: Node, group: list[Node], index: int) -> list[list[Node]] | None:
        """Groups placed after `group` that must run before `node`, in order; None if one of them needs `group`."""
        wanted = {id(self.owner[other]) for other in self._before[node]} - {id(group)}
        needed: list[list[Node]] = []
        for other in reversed(self.placed[index + 1 :]):
            if id(other) not in wanted:
                continue
            earlier = {id(self.owner[n]) for member in other for n in self._before[member]}
            if id(group) in earlier:
                return None
            wanted |= earlier
            needed.append(other)
        return needed[::-1]

    def _lawful(self, merged: Group) -> bool:
        if len(merged.inputs) + len(merged.outputs) > MAX_GROUP_OPERANDS:
            return False
        updated = [(value, target) for target, value in self.schedule.graph.updates.items() if value in merged.outputs]
        return not any(reads_what_it_overwrites(self.schedule, merged, value, target) for value, target in updated)
