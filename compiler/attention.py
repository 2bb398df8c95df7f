"""Attention as groups: which nodes the backend computes at once, a few rows after another."""

from __future__ import annotations

from edgec.compiler.schedule import Schedule, make_group
from edgec.graph.attention import Attention, AttentionGradient


def is_one_group(schedule: Schedule, part: Attention | AttentionGradient) -> bool:
    """Whether nobody else reads what lies between its nodes, and the backend has a kernel for all of them."""
    if len(set(part.nodes)) < len(part.nodes):
        return False
    group = make_group(schedule.graph, part.nodes)
    results = {node.output for node in part.results}
    return results.issuperset(group.outputs) and schedule.backend.attends(group)
