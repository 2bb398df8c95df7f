"""Pass `list_launches`: all calls in order; on a device the guard stands at the end, and what updates asks itself."""

from __future__ import annotations

import pytest

from edgec.backends.base import KernelSpec
from edgec.compiler.passbase import Options, Phase, Trace, run_pipeline
from edgec.compiler.pipeline import SCHEDULE_LEVEL, SCHEDULE_PASSES
from edgec.compiler.schedule import Schedule, TargetSchedules
from edgec.graph.ir import Module, Value
from edgec.graph.parse import parse_graph
from edgec.tools.testing.reference_backend import (
    DEVICE_TARGET,
    SCALAR_TARGET,
    GuardedReference,
    ReferenceBackend,
)

PROGRAM = """graph train {
  input %x: f32[4,4]
  param %w: f32[4,4] trainable
  state %n: i32[]
  input %one: i32[]
  scalar %lr: f32[]
  %a: f32[4,4] = matmul(%x, %w)
  %loss: f32[] = reduce_sum(%a) {axes=(0,1),keepdims=false}
  %norm: f32[] = reduce_max(%a) {axes=(0,1),keepdims=false}
  %g: f32[4,4] = matmul(%a, %x)
  %w.new: f32[4,4] = sgd_update(%w, %g, %lr)
  %n.new: i32[] = add(%n, %one)
  output "loss" = %loss
  output "norm" = %norm
  update %w = %w.new
  update %n = %n.new
}"""


def listed(backend: ReferenceBackend, watched: tuple[str, ...]) -> Schedule:
    graph = parse_graph(PROGRAM)
    graph.loss, graph.guard = (*watched, None)[:2]
    subject = TargetSchedules.of(Module({"train": graph}), backend)
    trace = Trace(stop_after=Phase.PLAN)
    run_pipeline(SCHEDULE_PASSES, subject, Options(skip=frozenset({"merge_launches"})), SCHEDULE_LEVEL, trace)
    return subject.programs["train"]


def test_on_a_processor_the_guard_stands_where_it_stood() -> None:
    schedule = listed(ReferenceBackend(SCALAR_TARGET), ("loss",))
    assert schedule.stop == sum(len(schedule.lowerings[g].calls) for g in schedule.groups[: schedule.guard])
    assert 0 < schedule.stop < len(schedule.launches)
    assert not any(isinstance(launch.spec, GuardedReference) for launch in schedule.launches)


@pytest.mark.parametrize("watched", [("loss",), ("loss", "norm")], ids=len)
def test_on_a_device_what_updates_reads_what_is_watched(watched: tuple[str, ...]) -> None:
    schedule = listed(ReferenceBackend(DEVICE_TARGET), watched)
    assert schedule.stop == len(schedule.launches)
    guarded = [launch for launch in schedule.launches if isinstance(launch.spec, GuardedReference)]
    assert len(guarded) == 2, "the parameter and the state; nothing else"
    for launch in guarded:
        words = launch.operands[-len(watched) :]
        assert [isinstance(word, Value) and word.name for word in words] == list(watched)
        assert len(launch.operands) == len(launch.spec.arguments)


class _Full(ReferenceBackend):
    """Cannot guard what counts."""

    def guarded(self, spec: KernelSpec, words: int) -> KernelSpec | None:
        return None if "add" in spec.stem else super().guarded(spec, words)


def test_one_kernel_without_a_guarded_form_keeps_the_guard_in_its_place() -> None:
    schedule = listed(_Full(DEVICE_TARGET), ("loss",))
    assert schedule.stop < len(schedule.launches)
    assert not any(isinstance(launch.spec, GuardedReference) for launch in schedule.launches)
