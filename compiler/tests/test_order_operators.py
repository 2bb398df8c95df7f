"""Pass `order_operators`: what it saves, and what no saving may break."""

from __future__ import annotations

from hypothesis import given, settings

from edgec.compiler.memory.lifetimes import aligned, lifetimes, live_bytes
from edgec.compiler.memory.reorder import Reordering
from edgec.compiler.passbase import Options
from edgec.compiler.passes.choose_storage import choose_storage
from edgec.compiler.passes.commit_updates import commit_updates
from edgec.compiler.passes.fuse_epilogue import fuse_epilogue
from edgec.compiler.passes.order_operators import order_operators
from edgec.compiler.schedule import Schedule, TargetSchedules, group_predecessors, verify_schedule
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


def test_a_branch_waits_until_its_result_is_wanted() -> None:
    """The small branch is given first, and greedily too; its large result would be alive beside the other's."""
    text = """graph infer {
      input %x: f32[8,8]
      param %a: f32[8,512]
      param %b: f32[512,512]
      param %c: f32[512,4]
      param %d: f32[8,4]
      %p: f32[8,512] = matmul(%x, %a)
      %q: f32[8,4] = matmul(%x, %d)
      %r: f32[8,512] = matmul(%q, %c) {transpose_b=true}
      %s: f32[8,512] = matmul(%p, %b)
      %t: f32[8,4] = matmul(%s, %c)
      %u: f32[4,4] = matmul(%t, %t) {transpose_a=true}
      %v: f32[8,4] = matmul(%q, %u)
      %w: f32[8,512] = mul(%r, %r)
      output "v" = %v
      output "w" = %w
    }"""
    _, schedule = unordered(parse_graph(text))
    before = group_predecessors(schedule)
    found = Reordering(schedule, (schedule.groups, []), before).improve(schedule.groups)
    given_peak = peak(schedule)
    schedule.reorder(found)
    verify_schedule(schedule)
    assert given_peak >= 3 * 8 * 512 * 4 > 2.2 * 8 * 512 * 4 > peak(schedule)


@given(random_trains())
@settings(max_examples=60, deadline=None)
def test_moves_are_counted_as_lifetimes_are(graph: Graph) -> None:
    """The search's own arithmetic agrees with `lifetimes`, and what it returns is a valid order that is not worse."""
    _, schedule = unordered(graph)
    before, forward = group_predecessors(schedule), schedule.forward()
    parts = [[g for g in schedule.groups if (g.anchor in forward) is early] for early in (True, False)]
    order = [group for part in parts for group in part]
    search = Reordering(schedule, parts, before)
    found = search.improve(order)
    schedule.reorder(order)
    verify_schedule(schedule)
    worst = live_bytes(lifetimes(schedule), max(len(order), 1))
    schedule.reorder(found)
    verify_schedule(schedule)
    live = live_bytes(lifetimes(schedule), max(len(order), 1))
    assert (max(live), live.count(max(live)), sum(live)) <= (max(worst), worst.count(max(worst)), sum(worst))
    if len(order) > 2 and max(live):
        handed_through = sum(
            aligned(value.type.bytes)
            for value in set(schedule.graph.outputs.values())
            if value.producer is None and schedule.in_arena(value) and not value.uses
        )
        assert search._score([search.number[group] for group in found])[0] == max(live) - handed_through


def test_an_input_that_nobody_reads_is_there_at_first() -> None:
    """So what makes more than it ends had better not come first. A copy of x (NHWC) would be beside all inputs."""
    text = """graph infer {
      input %x: f32[2,3,4,4]
      input %small: f32[2,8]
      input %unread: f32[2,8]
      %a: f32[2,8] = relu(%small)
      %b: f32[2,3,4,4] = relu(%x)
      output "a" = %a
    }"""
    _, schedule = unordered(parse_graph(text))
    given_peak = peak(schedule)
    schedule.reorder(Reordering(schedule, (schedule.groups, []), group_predecessors(schedule)).improve(schedule.groups))
    assert peak(schedule) <= given_peak


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
