"""Pass `recompute_activations`: values of the forward part of `train` that a memory budget has no room to keep.

`TargetSchedules.again` names them (`compiler/budget.py` chooses). They are computed a second time behind the guard, by
the same kernels in the same order, so gradients have the same bits.
"""

from __future__ import annotations

from edgec.compiler.passbase import Options
from edgec.compiler.recompute import recompute
from edgec.compiler.schedule import TargetSchedules


def recompute_activations(subject: TargetSchedules, options: Options) -> bool:
    schedule = subject.programs.get("train")
    if schedule is None or not subject.again:
        return False
    schedule.again = recompute(schedule.graph, [v for v in schedule.graph.values() if v.name in subject.again])
    schedule.regroup([node] for node in list(schedule.graph.nodes))
    return bool(schedule.again)
