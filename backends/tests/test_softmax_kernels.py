"""Vector kernels for softmax and cross entropy, against the ops' references; and what they do with NaN and infinity."""

import numpy as np
import pytest
from cases import loss
from cases.op_case import Normal, OpCase, assert_agrees, case

from edgec.backends.base import Group
from edgec.backends.targets import find_target
from edgec.backends.tvm.products import Request
from edgec.backends.tvm.softmax import lower_softmax
from edgec.graph.ops.softmax import Softmax
from edgec.graph.ops.softmax_cross_entropy import SoftmaxCrossEntropy
from edgec.runtime.abi import Storage
from edgec.tools.testing.kernel_call import run_lowering
from edgec.tools.testing.op_group import memory_of, op_group

CASES = [
    *(c for c in loss.CASES if isinstance(c.op, (Softmax, SoftmaxCrossEntropy)) and c.name != "softmax/channels"),
    case("large", Softmax(1), Normal((50, 700), scale=4.0)),
]
TARGETS = {name: find_target(name) for name in ("x86", "x86-64-v3")}


def row_major(group: Group) -> dict:
    return {value: Storage.row_major(value.type.shape) for value in (*group.inputs, *group.outputs)}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_softmax_agrees_with_the_reference(case: OpCase, target: str):
    arrays = case.arrays()
    group = op_group(case.op, case.types)
    memory = memory_of(group, arrays, row_major(group))
    lowering = lower_softmax(Request(group, row_major(group), {}, TARGETS[target]))
    run_lowering(lowering, memory, TARGETS[target])
    for value, expected in zip(group.outputs, case.op.reference(*arrays), strict=True):
        assert_agrees(case.op, memory[value].reshape(value.type.shape), expected)


def test_softmax_in_place():
    (found,) = (c for c in CASES if c.name == "softmax/rows")
    (x,) = found.arrays()
    group = op_group(found.op, found.types)
    (y,) = group.outputs
    lowering = lower_softmax(Request(group, row_major(group), {y: group.inputs[0]}, TARGETS["x86"]))
    memory = {y: x.reshape(-1).copy()}
    run_lowering(lowering, memory, TARGETS["x86"])
    assert_agrees(found.op, memory[y].reshape(x.shape), *found.op.reference(x))


def test_loss_without_slopes():
    (found,) = (c for c in CASES if c.name == "softmax_cross_entropy/batch")
    arrays = found.arrays()
    whole = op_group(found.op, found.types)
    group = Group(whole.nodes, whole.inputs, whole.outputs[:1])
    memory = memory_of(group, arrays, row_major(group))
    run_lowering(lower_softmax(Request(group, row_major(group), {}, TARGETS["x86"])), memory, TARGETS["x86"])
    assert_agrees(found.op, memory[group.outputs[0]].reshape(-1), found.op.reference(*arrays)[0])


@pytest.mark.parametrize("position", [0, 16, 36])
def test_a_nan_reaches_the_loss(position: int):
    (found,) = (c for c in CASES if c.name == "softmax_cross_entropy/one")
    logits, targets = found.arrays()
    logits[0, position] = np.nan
    group = op_group(found.op, found.types)
    memory = memory_of(group, [logits, targets], row_major(group))
    run_lowering(lower_softmax(Request(group, row_major(group), {}, TARGETS["x86"])), memory, TARGETS["x86"])
    assert np.isnan(memory[group.outputs[0]]).all()
