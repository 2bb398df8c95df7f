"""Pass `lower_groups`: calls for every group but views, and what a backend must not hand back."""

from __future__ import annotations

import dataclasses

import pytest

from edgec.backends.base import Group, Lowering
from edgec.compiler.passbase import Options, Phase, Trace, run_pipeline
from edgec.compiler.pipeline import SCHEDULE_LEVEL, SCHEDULE_PASSES
from edgec.compiler.schedule import Schedule, TargetSchedules
from edgec.graph.errors import InternalError
from edgec.graph.ir import Module
from edgec.graph.parse import parse_graph
from edgec.runtime.abi import Access
from edgec.tools.testing.reference_backend import ReferenceBackend

PROGRAM = """graph train {
  input %x: f32[4,4]
  param %w: f32[4,4] trainable
  scalar %lr: f32[]
  %a: f32[4,4] = matmul(%x, %w)
  %v: f32[16] = reshape(%a) {shape=(16)}
  %y: f32[16] = exp(%v)
  %g: f32[4,4] = matmul(%a, %x)
  %w.new: f32[4,4] = sgd_update(%w, %g, %lr)
  output "y" = %y
  update %w = %w.new
}"""


def lowered(backend: ReferenceBackend) -> Schedule:
    graph = parse_graph(PROGRAM)
    subject = TargetSchedules.of(Module({"train": graph}), backend)
    run_pipeline(SCHEDULE_PASSES, subject, Options(), SCHEDULE_LEVEL, Trace(stop_after=Phase.OPTIMISE))
    return subject.programs["train"]


def test_views_need_no_call_and_everything_else_has_one() -> None:
    schedule = lowered(ReferenceBackend())
    calls = {group.anchor.output.name: len(schedule.lowerings[group].calls) for group in schedule.groups}
    # The fused update runs in two calls: gradient to a workspace, then the step.
    assert calls == {"a": 1, "v": 0, "y": 1, "g": 2}


def test_an_update_reaches_its_kernel_as_one_pointer() -> None:
    schedule = lowered(ReferenceBackend())
    (group,) = [group for group in schedule.groups if group.anchor.output.name == "g"]
    step = schedule.lowerings[group].calls[1]
    access = {
        operand.name: a.access
        for operand, a in zip(step.operands, step.spec.arguments, strict=True)
        if operand in schedule.storage
    }
    assert access == {"lr": Access.READ, "w.new": Access.READ_WRITE}


class _Silent(ReferenceBackend):
    def lower(self, group: Group, storage, alias) -> Lowering:
        return Lowering(())


class _Greedy(ReferenceBackend):
    def lower(self, group: Group, storage, alias) -> Lowering:
        (first, *rest) = super().lower(group, storage, alias).calls
        return Lowering((dataclasses.replace(first, operands=first.operands * 9), *rest))


@pytest.mark.parametrize(("backend", "message"), [(_Silent, "no kernel call"), (_Greedy, "has 27 operands")])
def test_what_a_backend_must_not_hand_back(backend: type[ReferenceBackend], message: str) -> None:
    with pytest.raises(InternalError, match=message):
        lowered(backend())
