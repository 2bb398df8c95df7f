"""Vector kernels for elementwise chains and data movement, against the ops' references."""

import pytest
from cases import elementwise, movement
from cases.op_case import OpCase, assert_agrees

from edgec.backends.targets import find_target
from edgec.backends.tvm.maps import lower_map
from edgec.backends.tvm.products import Request
from edgec.graph.ops.reduction import Reduction
from edgec.runtime.abi import Storage
from edgec.tools.testing.kernel_call import run_lowering
from edgec.tools.testing.op_group import memory_of, op_group, some_storage

CASES = [case for case in (*elementwise.CASES, *movement.CASES) if not isinstance(case.op, Reduction)]
TARGETS = [find_target("x86"), find_target("x86-64-v3")]


def natural(shape: tuple[int, ...]) -> Storage:
    return Storage.channels_last(shape) if len(shape) == 4 else Storage.row_major(shape)


@pytest.mark.parametrize("seed", [0, 1, "natural"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_map_agrees_with_the_reference(case: OpCase, seed: int | str):
    arrays = case.arrays()
    group = op_group(case.op, case.types)
    values = (*group.inputs, *group.outputs)
    storage = {
        value: natural(value.type.shape) if seed == "natural" else some_storage(value.type.shape, seed, panels=False)
        for value in values
    }
    target = TARGETS[seed == 1]
    memory = memory_of(group, arrays, storage)
    lowering = lower_map(Request(group, storage, {}, target))
    if lowering is None:
        # A reshape of axes in another order that has no common split: the generic kernel's.
        assert case.name == "reshape/regroup" and seed != 0
        return
    run_lowering(lowering, memory, target)
    for value, expected in zip(group.outputs, case.op.reference(*arrays), strict=True):
        assert_agrees(case.op, storage[value].unpack(memory[value], value.type.shape), expected)
