"""Pass `commit_updates`: when a new value is written straight over the old parameter, and when a copy commits it."""

from __future__ import annotations

import pytest

from edgec.compiler.passbase import Options
from edgec.compiler.passes.commit_updates import commit_updates
from edgec.compiler.schedule import Schedule, TargetSchedules, is_copy, verify_schedule
from edgec.graph.ir import Module
from edgec.graph.parse import parse_graph
from edgec.tools.testing.reference_backend import ReferenceBackend


def committed(body: str) -> Schedule:
    graph = parse_graph("graph train {\n" + body + "\n}")
    subject = TargetSchedules.of(Module({"train": graph}), ReferenceBackend())
    commit_updates(subject, Options())
    verify_schedule(subject.programs["train"])
    return subject.programs["train"]


def order(schedule: Schedule) -> list[str]:
    return [node.outputs[0].name for node in schedule.graph.nodes]


LEAVES = """input %x: f32[4,4]
    param %a: f32[4,4] trainable
    param %b: f32[4,4] trainable
    scalar %lr: f32[]"""


def test_the_old_value_is_read_before_it_is_overwritten() -> None:
    schedule = committed(
        f"""{LEAVES}
        %g: f32[4,4] = matmul(%x, %b)
        %a.new: f32[4,4] = sgd_update(%a, %g, %lr)
        %y: f32[4,4] = matmul(%x, %a)
        output "y" = %y
        update %a = %a.new"""
    )
    assert order(schedule) == ["g", "y", "a.new"]
    assert {v.name: t.name for v, t in schedule.alias.items()} == {"a.new": "a"}


def test_readers_of_a_view_count() -> None:
    schedule = committed(
        """input %x: f32[2,4]
        param %b: f32[4] trainable
        scalar %lr: f32[]
        %v: f32[1,4] = reshape(%b) {shape=(1,4)}
        %g: f32[4] = reduce_sum(%x) {axes=(0), keepdims=false}
        %b.new: f32[4] = sgd_update(%b, %g, %lr)
        %y: f32[2,4] = add(%x, %v)
        output "y" = %y
        update %b = %b.new"""
    )
    assert order(schedule).index("y") < order(schedule).index("b.new")


COPIED = {
    "a reader of the old value needs the new one": """
        %a.new: f32[4,4] = sgd_update(%a, %x, %lr)
        %y: f32[4,4] = mul(%a.new, %a)
        output "y" = %y
        update %a = %a.new""",
    "the new value is handed out": """
        %a.new: f32[4,4] = sgd_update(%a, %x, %lr)
        output "y" = %a.new
        update %a = %a.new""",
    "the loss depends on the new value": """
        %a.new: f32[4,4] = sgd_update(%a, %x, %lr)
        %loss: f32[] = reduce_mean(%a.new) {axes=(0,1), keepdims=false}
        output "loss" = %loss
        update %a = %a.new
        loss "loss\"""",
    "the new value is an input": """
        %y: f32[4,4] = relu(%x)
        output "y" = %y
        update %a = %x""",
    "the new value is a view": """
        %r: f32[16] = reshape(%x) {shape=(16)}
        %e: f32[16] = exp(%r)
        %v: f32[4,4] = reshape(%e) {shape=(4,4)}
        update %a = %v""",
    "the kernel would read what it has overwritten": """
        %a.new: f32[4,4] = matmul(%a, %x)
        update %a = %a.new""",
    "the kernel reads the old value under two names": """
        %f: f32[16] = reshape(%a) {shape=(16)}
        %v: f32[4,4] = reshape(%f) {shape=(4,4)}
        %a.new: f32[4,4] = sgd_update(%a, %v, %lr)
        update %a = %a.new""",
}


@pytest.mark.parametrize("reason", COPIED)
def test_a_copy_commits_where(reason: str) -> None:
    schedule = committed(LEAVES + COPIED[reason])
    (target,) = schedule.graph.updates
    value = schedule.graph.updates[target]
    assert is_copy(value.producer) and value.name == "a.commit"
    assert schedule.alias[value] is target
    assert value.producer not in schedule.forward()


def test_one_value_for_two_parameters_lies_in_one_and_is_copied_to_the_other() -> None:
    schedule = committed(
        f"""{LEAVES}
        %e: f32[4,4] = exp(%x)
        update %a = %e
        update %b = %e"""
    )
    assert {v.name: t.name for v, t in schedule.alias.items()} == {"a.commit": "a", "e": "b"}


def test_two_parameters_swap() -> None:
    schedule = committed(
        f"""{LEAVES}
        update %a = %b
        update %b = %a"""
    )
    # One direction goes through the arena: a copy of the old value, then the copy that commits it.
    assert len(schedule.graph.nodes) == 3
    assert order(schedule)[0] == "b.commit"
