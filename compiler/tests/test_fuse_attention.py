"""Pass `fuse_attention`: which nodes become one group, and that the program stays what it was."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.backends.base import Group
from edgec.compiler.compile import CompileResult, compile_module
from edgec.compiler.passbase import Options
from edgec.compiler.schedule import Schedule
from edgec.graph.interp import run
from edgec.graph.ir import Module
from edgec.tools.testing.attention_net import CHAIN, attention_net
from edgec.tools.testing.plan_interp import PlanInterpreter
from edgec.tools.testing.programs import feeds
from edgec.tools.testing.reference_backend import SCALAR_TARGET, ReferenceBackend


def compiled(module: Module, backend: ReferenceBackend | None = None) -> CompileResult:
    result = compile_module(module, [backend or ReferenceBackend()], Options())
    assert result is not None
    return result


def attention(schedule: Schedule) -> list[Group]:
    return [group for group in schedule.groups if group.is_attention]


def ops(group: Group) -> list[str]:
    return [node.op.name for node in group.nodes]


CHAINS = {
    "a scale and a mask": (CHAIN, ["mul", "add", "softmax"]),
    "nothing": ("%weights: SCORES = softmax(%scores) {axis=3}", ["softmax"]),
    "a mask before a scale": (
        """%added: SCORES = add(%mask, %scores)
        %scaled: SCORES = div(%added, %scale)
        %weights: SCORES = softmax(%scaled) {axis=3}""",
        ["add", "div", "softmax"],
    ),
    "a choice before and behind": (
        """%allowed: bool[1,1,1,7] = less(%mask, %scale)
        %masked: SCORES = where(%allowed, %scores, %scale)
        %soft: SCORES = softmax(%masked) {axis=3}
        %weights: SCORES = where(%allowed, %soft, %scale)""",
        ["where", "softmax", "where"],
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_an_attention_is_one_group(name: str):
    chain, middle = CHAINS[name]
    module = attention_net(chain=chain)
    graph = module.programs["infer"].clone()
    result = compiled(module)
    schedule = result.schedules[0].programs["infer"]
    (group,) = attention(schedule)
    assert ops(group) == ["matmul", *middle, "matmul"]
    assert [value.name for value in group.outputs] == ["mixed"]
    scores = [value for g in schedule.groups for value in g.outputs if value.type.shape == (1, 2, 7, 7)]
    assert not scores
    given = feeds(graph)
    got = PlanInterpreter(result.artifact, result.images[0]).run("infer", given)
    np.testing.assert_array_equal(got["y"], run(graph, given).outputs["y"])


APART = {
    "weights that are handed out": attention_net(more='output "weights" = %weights'),
    "scores that are read elsewhere": attention_net(
        more="""%sum: f32[1,2,7] = reduce_sum(%scores) {axes=(3)}
        output "sum" = %sum"""
    ),
    "a softmax along another axis": attention_net(
        chain="%scaled: SCORES = mul(%scores, %scale)\n%weights: SCORES = softmax(%scaled) {axis=2}"
    ),
    "something in between that is not element by element": attention_net(
        chain="%summed: SCORES = cum_sum(%scores) {axis=3}\n%weights: SCORES = softmax(%summed) {axis=3}"
    ),
}


@pytest.mark.parametrize("name", APART)
def test_what_stays_apart(name: str):
    assert not attention(compiled(APART[name].clone()).schedules[0].programs["infer"])


def test_a_backend_without_such_kernels():
    assert not attention(compiled(attention_net(), ReferenceBackend(SCALAR_TARGET)).schedules[0].programs["infer"])


def test_what_needs_a_result_comes_behind_the_whole_group():
    """The keys depend on nothing that the first attention gives, and stand behind its softmax; v depends on them."""
    module = attention_net(
        chain="""%scaled: SCORES = mul(%scores, %scale)
        %soft: SCORES = softmax(%scaled) {axis=3}
        %again: SCORES = softmax(%mask.wide) {axis=3}
        %weights: SCORES = mul(%soft, %again)""".replace(
            "%scaled: SCORES", "%mask.wide: SCORES = broadcast_to(%mask) {shape=(1,2,7,7)}\n%scaled: SCORES"
        )
    )
    graph = module.programs["infer"].clone()
    result = compiled(module)
    (group,) = attention(result.schedules[0].programs["infer"])
    assert ops(group) == ["matmul", "mul", "softmax", "mul", "matmul"]
    given = feeds(graph)
    got = PlanInterpreter(result.artifact, result.images[0]).run("infer", given)
    np.testing.assert_array_equal(got["y"], run(graph, given).outputs["y"])
