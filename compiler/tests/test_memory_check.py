"""The checker refuses every kind of corrupted plan. A checker that accepts one of these proves nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from edgec.backends.base import KernelCall, Lowering
from edgec.compiler.memory.check import check_placements, check_plan
from edgec.compiler.memory.plan import make_plan
from edgec.compiler.pack import pack_artifact
from edgec.compiler.passbase import Options, Trace, run_pipeline
from edgec.compiler.passes.lower_groups import lower_groups
from edgec.compiler.pipeline import SCHEDULE_LEVEL, SCHEDULE_PASSES
from edgec.compiler.schedule import Schedule, Span, TargetSchedules
from edgec.graph.errors import InternalError
from edgec.graph.ir import Module, Value
from edgec.graph.parse import parse_graph
from edgec.runtime.format import Placement, Region
from edgec.tools.testing.programs import initialise
from edgec.tools.testing.reference_backend import SCALAR_TARGET, ReferenceBackend

# conv+relu -> r (two calls, a workspace) | view | matmul -> y | loss || dv | dw+update of w | updates of s, m in place
PROGRAM = """graph train {
  input %x: f32[1,3,4,4]
  param %k: f32[3,3,1,1]
  param %w: f32[48,8] trainable
  state %s: f32[8,48]
  state %m: f32[1,3,4,4]
  scalar %lr: f32[]
  %c: f32[1,3,4,4] = conv2d(%x, %k)
  %r: f32[1,3,4,4] = relu(%c)
  %v: f32[1,48] = reshape(%r) {shape=(1,48)}
  %y: f32[1,8] = matmul(%v, %w)
  %loss: f32[] = reduce_mean(%y) {axes=(0,1), keepdims=false}
  %dv: f32[1,48] = matmul(%y, %w) {transpose_b=true}
  %e: f32[1,48] = exp(%dv)
  %dw: f32[48,8] = matmul(%v, %y) {transpose_a=true}
  %w.new: f32[48,8] = sgd_update(%w, %dw, %lr)
  %t: f32[8,48] = matmul(%y, %e) {transpose_a=true}
  %s.new: f32[8,48] = sub(%s, %t)
  %m.new: f32[1,3,4,4] = add(%m, %x)
  output "loss" = %loss
  output "e" = %e
  update %m = %m.new
  update %w = %w.new
  update %s = %s.new
  loss "loss"
}"""


def planned() -> tuple[TargetSchedules, Schedule]:
    module = initialise(Module({"train": parse_graph(PROGRAM)}))
    subject = TargetSchedules.of(module, ReferenceBackend(SCALAR_TARGET))
    run_pipeline(SCHEDULE_PASSES, subject, Options(), SCHEDULE_LEVEL, Trace())
    return subject, subject.programs["train"]


def value(schedule: Schedule, name: str) -> Value:
    (found,) = [v for v in schedule.graph.values() if v.name == name]
    return found


def group_index(schedule: Schedule, name: str) -> int:
    return next(i for i, group in enumerate(schedule.groups) if any(v.name == name for v in group.outputs))


def move(schedule: Schedule, name: str, span: Span) -> None:
    schedule.plan.values[value(schedule, name)] = span


def span(schedule: Schedule, name: str) -> Span:
    return schedule.plan.values[schedule.home(value(schedule, name))]


def swap_calls(
    schedule: Schedule, name: str, change: Callable[[tuple[KernelCall, ...]], tuple[KernelCall, ...]]
) -> None:
    group = schedule.groups[group_index(schedule, name)]
    old = schedule.lowerings[group]
    schedule.lowerings[group] = Lowering(change(old.calls), old.workspaces)


# -- corruptions: what is done to a good plan, and a part of the message that refuses it ------------------------------


def _overlap_live(s: Schedule) -> None:
    move(s, "y", Span(span(s, "r").offset, span(s, "y").bytes))


def _overlap_inputs(s: Schedule) -> None:
    move(s, "lr", Span(span(s, "x").offset, 4))


def _overlap_workspace(s: Schedule) -> None:
    index = group_index(s, "r")
    s.plan.workspaces[index, 0] = Span(span(s, "r").offset, s.plan.workspaces[index, 0].bytes)


def _output_reused(s: Schedule) -> None:
    (home,) = [v for v in s.plan.values if v.name == "loss"]
    s.plan.values[home] = Span(span(s, "e").offset, 4)


def _too_small(s: Schedule) -> None:
    move(s, "y", Span(span(s, "y").offset, 16))


def _misaligned(s: Schedule) -> None:
    move(s, "y", Span(span(s, "y").offset + 4, span(s, "y").bytes))
    s.plan = dataclasses.replace(s.plan, arena_bytes=s.plan.arena_bytes + 64)


def _outside(s: Schedule) -> None:
    s.plan = dataclasses.replace(s.plan, arena_bytes=s.plan.arena_bytes - 64)


def _no_place(s: Schedule) -> None:
    del s.plan.values[value(s, "y")]


def _no_workspace(s: Schedule) -> None:
    s.plan.workspaces.clear()


def _update_before_read(s: Schedule) -> None:
    update, read = group_index(s, "w.new"), group_index(s, "e")
    assert update > read
    groups = list(s.groups)
    groups.insert(read, groups.pop(update))
    s.groups = groups
    s.plan = make_plan(s)


def _update_before_guard(s: Schedule) -> None:
    groups = list(s.groups)
    groups.insert(0, groups.pop(group_index(s, "m.new")))
    s.groups = groups
    s.plan = make_plan(s)


def _in_place_input_read_later(s: Schedule) -> None:
    """The gradient e overwrites y, of which later groups read the old value."""
    swap = Span(span(s, "y").offset, span(s, "e").bytes)
    move(s, "e", swap)


def _view_elsewhere(s: Schedule) -> None:
    view = value(s, "v")
    s.plan.values[view] = Span(0, view.type.bytes)
    alias = dict(s.alias)
    s.home = lambda v: view if v is view else Schedule.home(s, v)  # type: ignore[method-assign]
    assert alias[view] is value(s, "r")


def _update_elsewhere(s: Schedule) -> None:
    del s.alias[value(s, "s.new")]
    lower_groups(TargetSchedules(s.backend, {"train": s}), Options())
    s.plan = make_plan(s)


def _frozen_written(s: Schedule) -> None:
    target = value(s, "s")
    del s.graph.updates[target]


def _never_written(s: Schedule) -> None:
    swap_calls(s, "r", lambda calls: calls[:1])


def _reads_too_early(s: Schedule) -> None:
    swap_calls(s, "r", lambda calls: calls[::-1])


def _wrong_arity(s: Schedule) -> None:
    swap_calls(s, "y", lambda calls: (dataclasses.replace(calls[0], operands=calls[0].operands[:-1]),))


def _wrong_target(s: Schedule) -> None:
    other = value(s, "x")
    swap_calls(s, "y", lambda calls: (dataclasses.replace(calls[0], operands=(*calls[0].operands[:-1], other)),))


def _small_operand(s: Schedule) -> None:
    lr = value(s, "lr")
    swap_calls(s, "y", lambda calls: (dataclasses.replace(calls[0], operands=(lr, *calls[0].operands[1:])),))


CORRUPTIONS: dict[Callable[[Schedule], None], str] = {
    _overlap_live: "overlaps",
    _overlap_inputs: "shares its memory with another leaf",
    _overlap_workspace: "overlaps",
    _output_reused: "is overwritten before the end",
    _too_small: "needs 32 bytes and has 16",
    _misaligned: "not a multiple of 64",
    _outside: "the arena at",
    _no_place: "has no place",
    _no_workspace: "has no place",
    _update_before_read: "not there any more",
    _update_before_guard: "before the guard",
    _in_place_input_read_later: "not there any more",
    _view_elsewhere: "lies elsewhere",
    _update_elsewhere: "not in its memory at the end",
    _frozen_written: "which nothing updates",
    _never_written: "never written",
    _reads_too_early: "not there any more, or not yet",
    _wrong_arity: "operands for",
    _wrong_target: "none of its outputs",
    _small_operand: "smaller than",
}


def test_a_good_plan_is_accepted() -> None:
    _, schedule = planned()
    check_plan(schedule)
    assert schedule.guard == 4 and len(schedule.groups) == 8
    assert schedule.plan.workspaces


@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=lambda f: f.__name__.strip("_"))
def test_a_corrupted_plan_is_refused(corrupt: Callable[[Schedule], None]) -> None:
    _, schedule = planned()
    corrupt(schedule)
    with pytest.raises(InternalError, match=CORRUPTIONS[corrupt]):
        check_plan(schedule)


def _shift(placement: Placement, **changes: int) -> Placement:
    return dataclasses.replace(placement, **changes)


@pytest.mark.parametrize(
    ("region", "offset", "message"),
    [
        (Region.PARAM, 4, "misplaced"),
        (Region.STATE, 64, "too small"),
    ],
)
def test_corrupted_placements_are_refused(region: Region, offset: int, message: str) -> None:
    subject, _ = planned()
    module = Module({"train": subject.programs["train"].graph})
    image = subject.backend.build([c.spec for g in subject.programs["train"].lowerings.values() for c in g.calls])
    artifact = pack_artifact(module, [(subject, image)], {})
    variant = artifact.variants[0]
    check_placements(variant, artifact.tensors)
    moved = tuple(_shift(p, offset=p.offset + offset) if p.region is region else p for p in variant.placements)
    with pytest.raises(InternalError, match=message):
        check_placements(dataclasses.replace(variant, placements=moved), artifact.tensors)


def test_overlapping_placements_are_refused() -> None:
    subject, _ = planned()
    module = Module({"train": subject.programs["train"].graph})
    image = subject.backend.build([c.spec for g in subject.programs["train"].lowerings.values() for c in g.calls])
    artifact = pack_artifact(module, [(subject, image)], {})
    variant = artifact.variants[0]
    both = tuple(_shift(p, region=Region.PARAM, offset=0) for p in variant.placements)
    with pytest.raises(InternalError, match="misplaced"):
        check_placements(dataclasses.replace(variant, placements=both), artifact.tensors)
