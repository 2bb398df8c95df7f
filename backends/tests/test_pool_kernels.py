"""Vector kernels for pools and their gradients, against the ops' references."""

import pytest
from cases import compute
from cases.op_case import Normal, OpCase, Small, assert_agrees, case

from edgec.backends.targets import find_target
from edgec.backends.tvm.pools import lower_pool
from edgec.backends.tvm.products import Request
from edgec.graph.ops.max_pool2d import MaxPool2d
from edgec.graph.ops.max_pool2d_grad import MaxPool2dGrad
from edgec.graph.ops.max_pool2d_positions import MaxPool2dPositions
from edgec.graph.types import DType
from edgec.runtime.abi import Storage
from edgec.tools.testing.kernel_call import run_lowering
from edgec.tools.testing.op_group import memory_of, op_group

LARGE = {"kernel_size": (2, 2), "strides": (2, 2)}
CASES = [
    *(c for c in compute.CASES if "pool2d" in c.op.name),
    case("large", MaxPool2d(**LARGE), Normal((4, 70, 24, 24))),
    case(
        "large",
        MaxPool2dGrad(**LARGE, input_size=(24, 24)),
        Normal((4, 70, 12, 12)),
        Small(DType.U8, (4, 70, 12, 12)),
    ),
    # LLVM made a call of memset of its sums, as long as they began as a constant.
    case(
        "large_stem",
        MaxPool2dGrad((3, 3), (2, 2), (1, 1, 1, 1), input_size=(32, 32)),
        Normal((1, 16, 16, 16)),
        Small(DType.U8, (1, 16, 16, 16), 9),
    ),
    case("large", MaxPool2dPositions(**LARGE), Normal((4, 70, 24, 24), ties=True)),
]
TARGETS = {name: find_target(name) for name in ("x86", "x86-64-v3")}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_pool_agrees_with_the_reference(case: OpCase, target: str):
    arrays = case.arrays()
    group = op_group(case.op, case.types)
    storage = {value: Storage.channels_last(value.type.shape) for value in (*group.inputs, *group.outputs)}
    memory = memory_of(group, arrays, storage)
    lowering = lower_pool(Request(group, storage, {}, TARGETS[target]))
    assert lowering is not None
    assert ("large" in case.name) == (lowering.calls[0].tasks > 1)
    run_lowering(lowering, memory, TARGETS[target])
    for value, expected in zip(group.outputs, case.op.reference(*arrays), strict=True):
        assert_agrees(case.op, storage[value].unpack(memory[value], value.type.shape), expected)


def test_other_storages_are_left_to_the_generic_kernel():
    (found,) = (c for c in CASES if c.name == "max_pool2d/2x2")
    group = op_group(found.op, found.types)
    storage = {value: Storage.row_major(value.type.shape) for value in (*group.inputs, *group.outputs)}
    assert lower_pool(Request(group, storage, {}, TARGETS["x86"])) is None
