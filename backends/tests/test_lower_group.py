"""Every op case through the list of strategies, as the compiler reaches it: feature maps NHWC, all else row-major."""

import pytest
from cases.all_cases import OP_CASES
from cases.op_case import OpCase, assert_agrees

from edgec.backends.targets import find_target
from edgec.backends.tvm.generic.kernel import GenericSpec
from edgec.backends.tvm.strategies import lower_group
from edgec.graph.ops import ALL_OPS
from edgec.runtime.abi import Storage
from edgec.tools.testing.kernel_call import run_lowering
from edgec.tools.testing.op_group import memory_of, op_group

TARGET = find_target("x86")


def natural(shape: tuple[int, ...]) -> Storage:
    return Storage.channels_last(shape) if len(shape) == 4 else Storage.row_major(shape)


# Small or rare ops, and those whose vector kernels are still to come.
GENERIC_ONLY = {
    "arg_max",
    "arg_min",
    "batch_norm",
    "batch_norm_train",
    "cum_prod",
    "cum_prod_grad",
    "cum_sum",
    "gather_elements",
    "gather_nd",
    "non_max_suppression",
    "reduce_prod",
    "resample",
    "scatter_elements",
    "scatter_nd",
    "top_k",
}


@pytest.mark.parametrize("case", OP_CASES, ids=str)
def test_op_agrees_with_its_reference(case: OpCase):
    arrays = case.arrays()
    group = op_group(case.op, case.types)
    storage = {value: natural(value.type.shape) for value in (*group.inputs, *group.outputs)}
    memory = memory_of(group, arrays, storage)
    run_lowering(lower_group(group, storage, {}, TARGET), memory, TARGET)
    for value, expected in zip(group.outputs, case.op.reference(*arrays), strict=True):
        assert_agrees(case.op, storage[value].unpack(memory[value], value.type.shape), expected)


def test_only_small_and_rare_ops_have_no_vector_kernel():
    vectorised = set()
    for case in OP_CASES:
        group = op_group(case.op, case.types)
        storage = {value: natural(value.type.shape) for value in (*group.inputs, *group.outputs)}
        calls = lower_group(group, storage, {}, TARGET).calls
        if not any(isinstance(call.spec, GenericSpec) for call in calls):
            vectorised.add(type(case.op))
    convolutions = {op for op in ALL_OPS if op.name.startswith("conv2d")}  # their weights lie in panels: other tests
    assert {op.name for op in set(ALL_OPS) - vectorised - convolutions} == GENERIC_ONLY
