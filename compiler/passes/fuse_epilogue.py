"""Pass `fuse_epilogue`: elementwise nodes join the group that computes one of their operands.

A node joins the group of an operand, of one that nobody else reads if there is a choice, when the backend can fuse it
and its results have the shape of that operand. `compiler/joining.py` says what else must hold.

Requires COMMITTED; ensures FUSED.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgec.compiler.joining import Joining
from edgec.compiler.passbase import Options
from edgec.compiler.schedule import Schedule, TargetSchedules, is_copy, may_be_view
from edgec.graph.ir import Node


def fuse_epilogue(subject: TargetSchedules, options: Options) -> bool:
    changed = False
    for schedule in subject.programs.values():
        before = len(schedule.groups)
        schedule.regroup(_Fusion(schedule).run())
        changed |= len(schedule.groups) != before
    return changed


class _Fusion:
    def __init__(self, schedule: Schedule):
        self.schedule = schedule
        self.joining = Joining(schedule)
        self.can_fuse = schedule.backend.fusion()
        self.attention = {group.anchor for group in schedule.groups if group.is_attention}

    def run(self) -> list[list[Node]]:
        for given in self.schedule.groups:
            node = given.anchor
            alone = len(given.nodes) == 1 and node.op.elementwise
            if not (alone and any(self._join(node, group) for group in self._candidates(node))):
                self.joining.place(given.nodes)
        return self.joining.placed

    def _candidates(self, node: Node) -> Iterator[list[Node]]:
        """Groups of the operands that have the shape of the result: first those of an operand that nobody else reads,
        which then needs no memory at all; of equals the one placed last.
        """
        shape = node.outputs[0].type.shape
        operands = [v for v in node.inputs if v.producer is not None and v.type.shape == shape]
        read_here: dict[int, bool] = {}
        groups = {}
        for value in operands:
            group = self.joining.owner[value.producer]
            groups[id(group)] = group
            read_here[id(group)] = read_here.get(id(group), False) or len(value.uses) == 1
        yield from sorted(groups.values(), key=lambda group: (not read_here[id(group)], -self.joining.index(group)))

    def _join(self, node: Node, group: list[Node]) -> bool:
        anchor = group[0]
        if is_copy(anchor) or may_be_view(anchor) or anchor in self.schedule.seams or anchor in self.attention:
            return False
        shapes = {v.type.shape for v in node.outputs} | {v.type.shape for v in node.inputs if v.producer in group}
        return len(shapes) == 1 and self.can_fuse(anchor, node) and self.joining.join(node, group)
