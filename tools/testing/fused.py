"""For tests of passes that form groups: a program's schedule behind them, and its groups as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgec.backends.base import Backend
from edgec.compiler.passbase import Options
from edgec.compiler.passes.commit_updates import commit_updates
from edgec.compiler.schedule import Schedule, TargetSchedules, verify_schedule
from edgec.graph.ir import Module
from edgec.graph.parse import parse_graph
from edgec.tools.testing.reference_backend import ReferenceBackend

SchedulePass = Callable[[TargetSchedules, Options], bool]


def fused_by(
    passes: Sequence[SchedulePass], text: str, backend: Backend | None = None, again: Sequence[str] = ()
) -> Schedule:
    """The program of `text` after `commit_updates` and `passes`, verified. `again`: what it computes a second time."""
    graph = parse_graph(text)
    subject = TargetSchedules.of(Module({graph.name: graph}), backend or ReferenceBackend())
    schedule = subject.programs[graph.name]
    schedule.again = {n for n in schedule.graph.nodes if any(v.name in again for v in n.outputs)}
    for step in (commit_updates, *passes):
        step(subject, Options())
    verify_schedule(schedule)
    return schedule


def group_texts(schedule: Schedule) -> list[str]:
    """Groups as `ops -> outputs`."""
    return [
        "+".join(node.op.name for node in group.nodes) + " -> " + ",".join(value.name for value in group.outputs)
        for group in schedule.groups
    ]
