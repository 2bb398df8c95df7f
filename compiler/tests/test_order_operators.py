"""Pass `order_operators`: what it saves, and what no saving may break."""

from __future__ import annotations

from hypothesis import given, settings

from edgec.compiler.memory.lifetimes import lifetimes, live_bytes
from edgec.compiler.passbase import Options
from edgec.compiler.passes.choose_storage import choose_storage
from edgec.compiler.passes.commit_updates import commit_updates
from edgec.compiler.passes.fuse_epilogue import fuse_epilogue
from edgec.compiler.passes.order_operators import order_operators
from edgec.compiler.schedule import Schedule, TargetSchedules, verify_schedule
from edgec.graph.ir import Graph, Module
from edgec.graph.parse import parse_graph
from edgec.tools.testing.programs import random_trains
from edgec.tools.testing.reference_backend import ReferenceBackend


def unordered(graph: Graph) -> tuple[TargetSchedules, Schedule]:
    subject = TargetSchedules.of(Module({graph.name: graph}), ReferenceBackend())
    for step in (commit_updates, fuse_epilogue, choose_storage):
        step(subject, Options())
    return subject, subject.programs[graph.name]


def peak(schedule: Schedule) -> int:
    return max(live_bytes(lifetimes(schedule), max(len(schedule.groups), 1)))


def test_branches_run_one_after_the_other() -> None:
    """All expansions first, then all reductions, keeps every large tensor alive; branch by branch keeps one."""
    branches = range(4)
    large = [f"%l{i}: f32[8,512] = matmul(%x, %w{i})" for i in branches]
    small = [f"%s{i}: f32[8,1] = reduce_max(%l{i}) {{axes=(1), keepdims=true}}" for i in branches]
    params = [f"param %w{i}: f32[8,512]" for i in branches]
    outputs = [f'output "s{i}" = %s{i}' for i in branches]
    text = "graph infer {\ninput %x: f32[8,8]\n" + "\n".join([*params, *large, *small, *outputs]) + "\n}"
    subject, schedule = unordered(parse_graph(text))
    before = peak(schedule)
    order_operators(subject, Options())
    assert before > 4 * 8 * 512 * 4
    assert peak(schedule) < 2 * 8 * 512 * 4


@given(random_trains())
@settings(max_examples=60, deadline=None)
def test_never_worse_and_always_valid(graph: Graph) -> None:
    subject, schedule = unordered(graph)
    before = peak(schedule)
    order_operators(subject, Options())
    verify_schedule(schedule)
    assert peak(schedule) <= before
    forward = schedule.forward()
    guard = schedule.guard
    if guard is not None:
        assert all((group.anchor in forward) == (i < guard) for i, group in enumerate(schedule.groups))
