"""Pass `plan_memory`: offsets for everything in the arena, proved by the independent checker.

Requires LOWERED; ensures PLANNED.
"""

from __future__ import annotations

from edgec.compiler.memory.check import check_plan
from edgec.compiler.memory.plan import make_plan
from edgec.compiler.passbase import Options
from edgec.compiler.schedule import TargetSchedules


def plan_memory(subject: TargetSchedules, options: Options) -> bool:
    ahead = subject.backend.target.ahead if options.budget is None else 0
    for schedule in subject.programs.values():
        schedule.plan = make_plan(schedule, ahead)
        check_plan(schedule)
    return True
