"""Kernels that pack a bit for each element and gate by them: in memory order of any axes, and in place."""

import pytest
from cases import elementwise
from cases.op_case import OpCase

from edgec.backends.targets import find_target
from edgec.backends.tvm.bits import lower_bits
from edgec.backends.tvm.products import Request
from edgec.graph.ops.gate_by_bits import GateByBits
from edgec.graph.ops.inside_bits import BITS
from edgec.runtime.abi import Storage
from edgec.tools.testing.kernel_call import run_lowering
from edgec.tools.testing.op_group import memory_of, op_group

CASES = [case for case in elementwise.CASES if "bits" in case.op.name]
WHOLE = [case for case in CASES if case.types[0].shape[case.op.axis] % BITS == 0]
PARTS = [case for case in CASES if case not in WHOLE]
TARGETS = {name: find_target(name) for name in ("x86", "x86-64-v3")}


def channels_last(shape: tuple[int, ...]) -> Storage:
    return Storage.channels_last(shape) if len(shape) == 4 else Storage.row_major(shape)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("order", [channels_last, Storage.row_major])
@pytest.mark.parametrize("case", WHOLE, ids=str)
def test_bits_agree_with_the_reference(case: OpCase, order, target: str):
    arrays = case.arrays()
    group = op_group(case.op, case.types)
    storage = {value: order(value.type.shape) for value in (*group.inputs, *group.outputs)}
    in_place = isinstance(case.op, GateByBits) and target == "x86"
    alias = {group.outputs[0]: group.inputs[0]} if in_place else {}
    memory = memory_of(group, arrays, storage)
    if in_place:
        memory[group.outputs[0]] = memory[group.inputs[0]]
    lowering = lower_bits(Request(group, storage, alias, TARGETS[target]))
    assert lowering is not None
    assert (arrays[0].size > 300_000) == (lowering.calls[0].tasks > 1)
    run_lowering(lowering, memory, TARGETS[target])
    (expected,) = case.op.reference(*arrays)
    shape = expected.shape
    got = storage[group.outputs[0]].unpack(memory[group.outputs[0]], shape)
    assert (got == expected).all()


@pytest.mark.parametrize("case", PARTS, ids=str)
def test_broken_bytes_are_left_to_the_generic_kernel(case: OpCase):
    group = op_group(case.op, case.types)
    storage = {value: Storage.row_major(value.type.shape) for value in (*group.inputs, *group.outputs)}
    assert lower_bits(Request(group, storage, {}, TARGETS["x86"])) is None
