"""Pass `fuse_attention`: attention, and its gradient, become one group each where the backend says that this pays.

Their scores then lie in a workspace, some rows at a time, and the whole matrix never exists. Groups are ordered anew:
what needs a result of such a group comes behind all of it.

Requires COMMITTED.
"""

from __future__ import annotations

import heapq

from edgec.backends.base import Group
from edgec.compiler.attention import is_one_group
from edgec.compiler.passbase import Options
from edgec.compiler.schedule import Schedule, TargetSchedules, group_predecessors
from edgec.graph.attention import Attention, AttentionGradient, attention_of, gradient_of
from edgec.graph.ir import Node
from edgec.graph.ops.softmax import Softmax


def fuse_attention(subject: TargetSchedules, options: Options) -> bool:
    return any([_fuse(schedule) for schedule in subject.programs.values()])


def _fuse(schedule: Schedule) -> bool:
    nodes = set(schedule.graph.nodes)
    softmaxes = [node for node in schedule.graph.nodes if isinstance(node.op, Softmax)]
    parts = [part for node in softmaxes if (part := _part_of(schedule, node, nodes)) is not None]
    if not parts:
        return False
    owner = {node: part for part in parts for node in part.nodes}
    last = {owner[node]: node for node in schedule.graph.nodes if node in owner}
    groups = []
    for node in schedule.graph.nodes:
        if node not in owner:
            groups.append((node,))
        elif last[owner[node]] is node:
            groups.append(owner[node].nodes)
    schedule.regroup(groups)
    schedule.reorder(_in_order(schedule))
    return True


def _part_of(schedule: Schedule, softmax: Node, nodes: set[Node]) -> Attention | AttentionGradient | None:
    candidates = (attention_of(softmax, nodes), gradient_of(softmax))
    return next((part for part in candidates if part is not None and is_one_group(schedule, part)), None)


def _in_order(schedule: Schedule) -> list[Group]:
    """The groups in an order that is valid, and as given where that is."""
    rank = {group: position for position, group in enumerate(schedule.groups)}
    before = group_predecessors(schedule)
    after: dict[Group, list[Group]] = {group: [] for group in rank}
    for group, earlier in before.items():
        for other in earlier:
            after[other].append(group)
    missing = {group: len(earlier) for group, earlier in before.items()}
    ready = [rank[group] for group, count in missing.items() if count == 0]
    heapq.heapify(ready)
    order: list[Group] = []
    while ready:
        group = schedule.groups[heapq.heappop(ready)]
        order.append(group)
        for other in after[group]:
            missing[other] -= 1
            if missing[other] == 0:
                heapq.heappush(ready, rank[other])
    return order
