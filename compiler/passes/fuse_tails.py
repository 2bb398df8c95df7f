"""Pass `fuse_tails`: sums over a tensor join the group that stores it, as its tail.

Mean and variance of a batch, and the gradients of a norm's scale and shift, are sums over all of a tensor that a
convolution has just made. The kernel that makes it adds up what it has written while that is still in the nearest
caches; by themselves the sums would read it from memory again. Which kernels do so the backend says
(`Backend.takes_tail`); `compiler/joining.py` says what else must hold. The tensor must be one that is stored anyway.

Requires FUSED.
"""

from __future__ import annotations

from edgec.compiler.joining import Joining
from edgec.compiler.passbase import Options
from edgec.compiler.schedule import Schedule, TargetSchedules, is_copy, make_group, may_be_view
from edgec.graph.ir import Node
from edgec.graph.ops.moments import Moments
from edgec.graph.ops.norm_param_grad import NormParamGrad


def fuse_tails(subject: TargetSchedules, options: Options) -> bool:
    changed = False
    for schedule in subject.programs.values():
        before = len(schedule.groups)
        if any(isinstance(group.anchor.op, Moments | NormParamGrad) for group in schedule.groups):
            schedule.regroup(_fused(schedule))
        changed |= len(schedule.groups) != before
    return changed


def _fused(schedule: Schedule) -> list[list[Node]]:
    joining = Joining(schedule)
    for group in schedule.groups:
        if not _joins(schedule, joining, group.nodes):
            joining.place(group.nodes)
    return joining.placed


def _joins(schedule: Schedule, joining: Joining, nodes: tuple[Node, ...]) -> bool:
    node = nodes[0]
    if len(nodes) > 1 or not isinstance(node.op, Moments | NormParamGrad) or node.inputs[0].producer is None:
        return False
    group = joining.owner[node.inputs[0].producer]
    anchor = group[0]
    if anchor.op.elementwise or is_copy(anchor) or may_be_view(anchor) or anchor in schedule.seams:
        return False
    merged = make_group(schedule.graph, [*group, node])
    if merged.tail is not node or node.inputs[0] not in merged.outputs:
        return False
    return schedule.backend.takes_tail(merged) and joining.join(node, group)
