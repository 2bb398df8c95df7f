"""Every op through the generic lowering, against its numpy reference, with operands in any storage."""

import numpy as np
import pytest
from cases.all_cases import OP_CASES
from cases.op_case import OpCase, assert_agrees

from edgec.backends.targets import find_target
from edgec.backends.tvm.generic.kernel import lower_generic
from edgec.graph.ops import ALL_OPS
from edgec.graph.ops.reduce_max import ReduceMax
from edgec.graph.ops.reduce_min import ReduceMin
from edgec.graph.ops.reduction import Reduction
from edgec.graph.types import DType, tensor
from edgec.runtime.abi import Storage
from edgec.tools.testing.kernel_call import run_lowering
from edgec.tools.testing.op_group import memory_of, op_group, some_storage

TARGET = find_target("x86-64-v3")


def test_every_op_has_a_case():
    assert {type(case.op) for case in OP_CASES} == set(ALL_OPS)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("case", OP_CASES, ids=str)
def test_op_agrees_with_its_reference(case: OpCase, seed: int):
    arrays = case.arrays()
    group = op_group(case.op, case.types)
    values = (*group.inputs, *group.outputs)
    storage = {value: some_storage(value.type.shape, seed and seed + i) for i, value in enumerate(values)}
    memory = memory_of(group, arrays, storage)
    run_lowering(lower_generic(group, storage, {}, TARGET), memory, TARGET)
    for value, expected in zip(group.outputs, case.op.reference(*arrays), strict=True):
        assert_agrees(case.op, storage[value].unpack(memory[value], value.type.shape), expected)


@pytest.mark.parametrize("op", [ReduceMin((1,), False), ReduceMax((1,), False)], ids=lambda op: op.name)
def test_extrema_pass_nan_on(op: Reduction):
    x = np.array([[1, np.nan, 2], [np.nan, 0, 5], [3, 4, 6]], np.float32)
    group = op_group(op, (tensor(DType.F32, 3, 3),))
    storage = {value: Storage.row_major(value.type.shape) for value in (*group.inputs, *group.outputs)}
    memory = memory_of(group, [x], storage)
    run_lowering(lower_generic(group, storage, {}, TARGET), memory, TARGET)
    np.testing.assert_array_equal(memory[group.outputs[0]], op.reference(x)[0])
