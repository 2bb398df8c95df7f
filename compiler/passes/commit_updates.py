"""Pass `commit_updates`: every updated value gets the memory of what it replaces, by a node that may run late enough.

A parameter or state is overwritten after the guard and after the last read of its old value. Where the node that
computes the new value cannot wait for that (the loss depends on it, or a reader of the old value does), or cannot
write there (it is a leaf, a view, an output of the program, or its kernel may not overwrite what it reads), the new
value is computed in the arena and a copy commits it.
Nodes then stand in an order that keeps all this.

Ensures COMMITTED.
"""

from __future__ import annotations

from edgec.backends.base import Group
from edgec.compiler.passbase import Options
from edgec.compiler.schedule import (
    Schedule,
    TargetSchedules,
    copy_of,
    late_order,
    make_group,
    may_be_view,
    node_predecessors,
    old_readers,
)
from edgec.graph.ir import Node, Value


def commit_updates(subject: TargetSchedules, options: Options) -> bool:
    changed = False
    for schedule in subject.programs.values():
        commits = _Commits(schedule)
        for target in list(schedule.graph.updates):
            commits.commit(target)
            changed = True
        schedule.regroup([node] for node in late_order(schedule))
    return changed


class _Commits:
    """The updates of one program, committed one by one: `waiting` says which nodes must come behind each."""

    def __init__(self, schedule: Schedule):
        self._schedule = schedule
        self._forward = schedule.forward()  # copies are made behind it
        self._read_order()

    def _read_order(self) -> None:
        self._waiting: dict[Node, list[Node]] = {}
        for later, earlier in node_predecessors(self._schedule).items():
            for other in earlier:
                self._waiting.setdefault(other, []).append(later)

    def commit(self, target: Value) -> None:
        schedule, graph = self._schedule, self._schedule.graph
        value = graph.updates[target]
        # One copy may itself have to wait for another commit (two parameters that swap); nothing waits for the second.
        while not self._may_overwrite(value, target):
            value = graph.updates[target] = copy_of(graph, value, f"{target.name}.commit")
            self._read_order()
        schedule.alias[value] = target
        for reader in old_readers(target) - {value.producer}:
            self._waiting.setdefault(reader, []).append(value.producer)

    def _may_overwrite(self, value: Value, target: Value) -> bool:
        graph = self._schedule.graph
        node = value.producer
        if node is None or may_be_view(node) or node in self._forward:
            return False
        if any(v is value for v in graph.outputs.values()) or sum(v is value for v in graph.updates.values()) > 1:
            return False
        if (old_readers(target) - {node}) & self._must_follow(node):
            return False
        return not reads_what_it_overwrites(self._schedule, make_group(graph, [node]), value, target)

    def _must_follow(self, node: Node) -> set[Node]:
        """All nodes that must run after `node`, by data or because they overwrite what it reads."""
        seen: set[Node] = set()
        stack = [node]
        while stack:
            for later in self._waiting.get(stack.pop(), ()):
                if later not in seen:
                    seen.add(later)
                    stack.append(later)
        return seen


def reads_what_it_overwrites(schedule: Schedule, group: Group, value: Value, target: Value) -> bool:
    """Whether `group` reads `target` in a way that forbids it to write `value` over it while it runs."""
    names = [operand for operand in group.inputs if _leaf_behind(operand) is target]
    if len(names) > 1:  # two pointers to the memory that is written
        return True
    return bool(names) and (value, names[0]) not in set(schedule.backend.in_place(group))


def _leaf_behind(value: Value) -> Value:
    while value.producer is not None and may_be_view(value.producer):
        value = value.producer.inputs[0]
    return value
