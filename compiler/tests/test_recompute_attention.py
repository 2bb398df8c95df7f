"""Pass `recompute_attention`: no scores wait for the backward part, and steps have the same bits."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.backends.base import Group
from edgec.compiler.compile import CompileResult, compile_module
from edgec.compiler.passbase import Options, Trace, run_pipeline
from edgec.compiler.pipeline import SCHEDULE_LEVEL, SCHEDULE_PASSES
from edgec.compiler.schedule import Schedule, TargetSchedules
from edgec.compiler.sparse.scheme import Scheme, WeightRule
from edgec.compiler.train import Train
from edgec.graph.interp import run
from edgec.tools.testing.attention_net import CHAIN, attention_net
from edgec.tools.testing.plan_interp import PlanInterpreter
from edgec.tools.testing.programs import feeds
from edgec.tools.testing.reference_backend import ReferenceBackend

SCORES = (3, 2, 7, 7)


def compiled(train: Train, skip: frozenset[str] = frozenset(), **net: str) -> CompileResult:
    result = compile_module(attention_net(**net), [ReferenceBackend()], Options(train=train, skip=skip))
    assert result is not None
    return result


def attention(schedule: Schedule) -> list[Group]:
    return [group for group in schedule.groups if group.is_attention]


def scores_in_memory(schedule: Schedule) -> list[str]:
    return [v.name for group in schedule.groups for v in group.outputs if v.type.shape == SCORES]


def check_steps(result: CompileResult) -> None:
    """Three steps of the artifact and of the graph that it was made from."""
    graph = result.module.programs["train"]
    machine = PlanInterpreter(result.artifact, result.images[0])
    state: dict[str, np.ndarray] = {}
    for step in range(3):
        given = feeds(graph, seed=step)
        wanted = run(graph, {**given, **state})
        got = machine.run("train", given)
        state |= wanted.updates
        np.testing.assert_array_equal(got["loss"], wanted.outputs["loss"])
        for name, array in wanted.updates.items():
            np.testing.assert_array_equal(machine.tensor(name), array, err_msg=name)


@pytest.mark.parametrize("skip", ["", "shrink_saved", "fuse_epilogue", "order_operators"])
def test_a_step_keeps_no_scores(skip: str):
    result = compiled(Train(batch=3, momentum=0.9), frozenset({skip}))
    schedule = result.schedules[0].programs["train"]
    forward, backward = attention(schedule)
    assert [v.type.shape for v in forward.outputs] == [(3, 2, 7, 3)]
    assert [v.type.shape for v in backward.outputs] == [(3, 2, 7, 3)] * 3
    assert not scores_in_memory(schedule)
    check_steps(result)


@pytest.mark.parametrize(
    ("trained", "results"),
    [("w.q", 1), ("w.k", 1), ("w.v", 1), ("w.[qk]", 2), ("w.[kv]", 2), ("w.o", 0)],
)
def test_only_gradients_that_are_wanted(trained: str, results: int):
    result = compiled(Train(batch=3, update=Scheme("none", weights=(WeightRule(trained),))))
    groups = attention(result.schedules[0].programs["train"])
    assert [len(group.outputs) for group in groups[1:]] == ([results] if results else [])
    assert not scores_in_memory(result.schedules[0].programs["train"])
    check_steps(result)


def test_a_mask_behind_the_softmax():
    chain = """%zero: f32[1,1,1,7] = mul(%mask, %scale)
    %allowed: bool[1,1,1,7] = less(%zero, %scale)
    %scaled: SCORES = mul(%scores, %scale)
    %soft: SCORES = softmax(%scaled) {axis=3}
    %weights: SCORES = where(%allowed, %soft, %scale)"""
    result = compiled(Train(batch=3), chain=chain)
    assert len(attention(result.schedules[0].programs["train"])) == 2
    check_steps(result)


KEPT = {
    "dropout of the weights": {
        "chain": CHAIN.replace("%weights", "%soft") + "\n%weights: SCORES = dropout(%soft) {rate=0.25}"
    },
    "a gradient of the scores that somebody else wants": {
        "leaves": "param %bias: f32[2,7,7]",
        "chain": "%masked: SCORES = add(%scores, %bias)\n%weights: SCORES = softmax(%masked) {axis=3}",
    },
}


@pytest.mark.parametrize("name", KEPT)
def test_where_scores_are_needed_they_are_kept(name: str):
    """And computed once: the graph is as it was."""
    result = compiled(Train(batch=3), **KEPT[name])
    schedule = result.schedules[0].programs["train"]
    assert not attention(schedule)
    assert sum(node.op.name == "softmax" for node in schedule.graph.nodes) == 1
    check_steps(result)


def test_lossy_forms_stay():
    result = compiled(Train(batch=3, saved_activations="f16"))
    assert len(attention(result.schedules[0].programs["infer"])) == 1


def test_where_a_budget_has_no_room_for_queries_and_keys():
    """Copies of the scores are made of the copies of q and k, and keep nothing alive."""
    module = compiled(Train(batch=3)).module
    names = frozenset({"q", "k", "v", "q.split", "k.split", "v.split", "q.flat", "k.flat", "v.flat"})
    subject = TargetSchedules.of(module, ReferenceBackend(), names)
    run_pipeline(SCHEDULE_PASSES, subject, Options(), SCHEDULE_LEVEL, Trace())
    schedule = subject.programs["train"]
    forward, backward = attention(schedule)
    assert not {value.name for value in forward.inputs} & {value.name for value in backward.inputs} & {"q", "k", "v"}
    given = feeds(module.programs["train"])
    wanted, got = run(module.programs["train"], given), run(schedule.graph, given)
    for name, array in wanted.updates.items():
        np.testing.assert_array_equal(got.updates[name], array, err_msg=name)


def test_the_switch():
    skip = frozenset({"recompute_attention", "fuse_attention"})
    result = compiled(Train(batch=3), skip)
    schedule = result.schedules[0].programs["train"]
    assert not attention(schedule)
    assert scores_in_memory(schedule)
    assert result.report.programs["train"].arena_bytes > compiled(Train(batch=3)).report.programs["train"].arena_bytes
