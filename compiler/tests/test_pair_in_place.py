"""Pass `pair_in_place`: which outputs overwrite an input, and which must not."""

from __future__ import annotations

import pytest

from edgec.backends.base import Target
from edgec.compiler.passbase import Options
from edgec.compiler.passes.choose_storage import choose_storage
from edgec.compiler.passes.commit_updates import commit_updates
from edgec.compiler.passes.lower_groups import lower_groups, shared_operands
from edgec.compiler.passes.pair_in_place import pair_in_place
from edgec.compiler.schedule import Schedule, TargetSchedules
from edgec.graph.ir import Module
from edgec.graph.parse import parse_graph
from edgec.runtime.abi import Access, Arch, Storage
from edgec.tools.testing.reference_backend import ReferenceBackend


def paired(body: str, backend: ReferenceBackend | None = None) -> tuple[TargetSchedules, Schedule]:
    """Unfused, so that every node is a step."""
    graph = parse_graph("graph infer {\ninput %x: f32[4,4]\nparam %w: f32[4,4]\n" + body + "\n}")
    subject = TargetSchedules.of(Module({"infer": graph}), backend or ReferenceBackend())
    for step in (commit_updates, choose_storage, pair_in_place):
        step(subject, Options())
    return subject, subject.programs["infer"]


def pairs(schedule: Schedule) -> dict[str, str]:
    return {v.name: t.name for v, t in schedule.alias.items()}


CASES = {
    "a dead operand": (
        """%a: f32[4,4] = matmul(%x, %w)
        %b: f32[4,4] = relu(%a)
        %y: f32[4,4] = exp(%b)
        output "y" = %y""",
        {"b": "a", "y": "b"},
    ),
    "an operand that is read later": (
        """%a: f32[4,4] = matmul(%x, %w)
        %b: f32[4,4] = relu(%a)
        %y: f32[4,4] = matmul(%b, %a)
        output "y" = %y""",
        {},
    ),
    "an operand whose view is read later": (
        """%a: f32[4,4] = matmul(%x, %w)
        %v: f32[16] = reshape(%a) {shape=(16)}
        %b: f32[4,4] = relu(%a)
        %u: f32[16] = exp(%v)
        output "y" = %b
        output "z" = %u""",
        {"v": "a", "u": "v"},
    ),
    "an operand that is an output": (
        """%a: f32[4,4] = matmul(%x, %w)
        %b: f32[4,4] = relu(%a)
        output "a" = %a
        output "b" = %b""",
        {},
    ),
    "an input, a parameter": (
        """%a: f32[4,4] = relu(%x)
        %b: f32[4,4] = exp(%w)
        output "a" = %a
        output "b" = %b""",
        {},
    ),
    "an operand that a kernel also reads in another way": (
        """%a: f32[4,4] = relu(%x)
        %y: f32[4,4] = matmul(%a, %a)
        output "y" = %y""",
        {},
    ),
    "an operand under two names": (
        """%a: f32[4,4] = matmul(%x, %w)
        %v: f32[16] = reshape(%a) {shape=(16)}
        %u: f32[4,4] = reshape(%v) {shape=(4,4)}
        %y: f32[4,4] = mul(%a, %u)
        output "y" = %y""",
        {"v": "a", "u": "v"},
    ),
    "two dead operands: one of them": (
        """%a: f32[4,4] = matmul(%x, %w)
        %b: f32[4,4] = matmul(%w, %x)
        %y: f32[4,4] = mul(%a, %b)
        output "y" = %y""",
        {"y": "a"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_pairs(case: str) -> None:
    body, wanted = CASES[case]
    _, schedule = paired(body)
    assert pairs(schedule) == wanted


def test_elements_must_lie_in_the_same_order() -> None:
    class Backend(ReferenceBackend):
        def activation_storage(self, values):
            chosen = {value: Storage.row_major(value.type.shape) for value in values}
            return chosen | {v: Storage(v.type.shape, (1, 0)) for v in chosen if v.name == "a"}

    _, schedule = paired(CASES["a dead operand"][0], Backend())
    assert pairs(schedule) == {"y": "b"}


def test_one_pointer_serves_both() -> None:
    subject, schedule = paired(CASES["a dead operand"][0])
    lower_groups(subject, Options())
    group = next(g for g in schedule.groups if g.anchor.op.name == "relu")
    assert {v.name: t.name for v, t in shared_operands(schedule, group).items()} == {"b": "a"}
    (call,) = schedule.lowerings[group].calls
    assert [a.access for a in call.spec.arguments] == [Access.READ_WRITE]


GRAPH_TARGET = Target("reference-graph", Arch.CUDA, "", "sm_90", lanes=4)


def test_groups_side_by_side_do_not_overwrite_what_another_reads() -> None:
    """Where groups run side by side, who overwrites would wait for a reader that it has nothing else to do with."""
    body = """%a: f32[4,4] = matmul(%x, %w)
        %z: f32[4,4] = matmul(%a, %w)
        %b: f32[4,4] = relu(%a)
        %y: f32[4,4] = exp(%b)
        output "y" = %y
        output "z" = %z"""
    assert pairs(paired(body)[1]) == {"b": "a", "y": "b"}
    assert pairs(paired(body, ReferenceBackend(GRAPH_TARGET))[1]) == {"y": "b"}
