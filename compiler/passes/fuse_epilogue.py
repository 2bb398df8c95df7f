"""Pass `fuse_epilogue`: elementwise nodes join the group that computes one of their operands.

A node joins the group of an operand, of one that nobody else reads if there is a choice, when the backend can fuse it,
its results have the shape of that operand, both run on the same side of the guard, and no path leads from the group
through a node outside of it back to the joining node: otherwise the group would have to run before and after that node.
Paths include the order between readers of an old parameter and the node that overwrites it, so a fused update never has
to run too early. Everything the joining node needs moves before the group, if it does not stand there already. What is
computed again and what is not stay apart: a reader of a value that comes back at the start of a segment would else run
there, and its result wait for its turn.

Requires COMMITTED; ensures FUSED.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgec.backends.base import Group
from edgec.compiler.passbase import Options
from edgec.compiler.passes.commit_updates import reads_what_it_overwrites
from edgec.compiler.schedule import Schedule, TargetSchedules, is_copy, make_group, may_be_view, node_predecessors
from edgec.graph.ir import Node
from edgec.runtime.abi import MAX_KERNEL_ARGS

# Operands of a fused group; the rest of a kernel's arguments is left for workspaces.
MAX_GROUP_OPERANDS = MAX_KERNEL_ARGS - 6


def fuse_epilogue(subject: TargetSchedules, options: Options) -> bool:
    changed = False
    for schedule in subject.programs.values():
        before = len(schedule.groups)
        schedule.regroup(_Fusion(schedule).run())
        changed |= len(schedule.groups) != before
    return changed


class _Fusion:
    """The groups placed so far, in a valid order; `owner` finds the group of a node."""

    def __init__(self, schedule: Schedule):
        self.schedule = schedule
        self.before = node_predecessors(schedule)
        self.forward = schedule.forward()
        self.can_fuse = schedule.backend.fusion()
        self.placed: list[list[Node]] = []
        self.owner: dict[Node, list[Node]] = {}
        self.attention = {group.anchor for group in schedule.groups if group.is_attention}

    def run(self) -> list[list[Node]]:
        for given in self.schedule.groups:
            node = given.anchor
            alone = len(given.nodes) == 1 and node.op.elementwise
            if not (alone and any(self._join(node, group) for group in self._candidates(node))):
                group = list(given.nodes)
                self.placed.append(group)
                self.owner.update(dict.fromkeys(group, group))
        return self.placed

    def _candidates(self, node: Node) -> Iterator[list[Node]]:
        """Groups of the operands that have the shape of the result: first those of an operand that nobody else reads,
        which then needs no memory at all; of equals the one placed last.
        """
        shape = node.outputs[0].type.shape
        operands = [v for v in node.inputs if v.producer is not None and v.type.shape == shape]
        read_here: dict[int, bool] = {}
        groups = {}
        for value in operands:
            group = self.owner[value.producer]
            groups[id(group)] = group
            read_here[id(group)] = read_here.get(id(group), False) or len(value.uses) == 1
        yield from sorted(groups.values(), key=lambda group: (not read_here[id(group)], -_index(self.placed, group)))

    def _join(self, node: Node, group: list[Node]) -> bool:
        anchor = group[0]
        if is_copy(anchor) or may_be_view(anchor) or anchor in self.schedule.seams or anchor in self.attention:
            return False
        if (anchor in self.forward) != (node in self.forward):
            return False
        if (anchor in self.schedule.again) != (node in self.schedule.again):
            return False
        shapes = {v.type.shape for v in node.outputs} | {v.type.shape for v in node.inputs if v.producer in group}
        if len(shapes) != 1 or not self.can_fuse(anchor, node):
            return False
        index = _index(self.placed, group)
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
        wanted = {id(self.owner[other]) for other in self.before[node]} - {id(group)}
        needed: list[list[Node]] = []
        for other in reversed(self.placed[index + 1 :]):
            if id(other) not in wanted:
                continue
            earlier = {id(self.owner[n]) for member in other for n in self.before[member]}
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


def _index(placed: list[list[Node]], group: list[Node]) -> int:
    """Position of a group, searched from the end, where it mostly stands."""
    for index in range(len(placed) - 1, -1, -1):
        if placed[index] is group:
            return index
    raise ValueError("the group is not placed")
