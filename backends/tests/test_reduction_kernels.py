"""Vector kernels for reductions, in one kernel and in two, against the ops' references."""

import numpy as np
import pytest
from cases import movement
from cases.op_case import Normal, OpCase, Uniform, assert_agrees, case

from edgec.backends.targets import find_target
from edgec.backends.tvm.products import Request
from edgec.backends.tvm.reductions import lower_reduction
from edgec.graph.ops.reduce_max import ReduceMax
from edgec.graph.ops.reduce_mean import ReduceMean
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.types import DType
from edgec.runtime.abi import Storage
from edgec.tools.testing.kernel_call import run_lowering
from edgec.tools.testing.op_group import memory_of, op_group, some_storage

COVERED = (ReduceSum, ReduceMean, ReduceMax)  # in f32, of two elements at least; the rest is left to the generic kernel
CASES = [
    *(
        c
        for c in movement.CASES
        if type(c.op) in COVERED and c.op.axes and c.types[0].dtype is DType.F32 and c.types[0].size > 1
    ),
    case("partials_along", ReduceSum((0, 1)), Normal((300, 301))),
    case("partials_mean", ReduceMean((0, 2, 3)), Normal((4, 40, 48, 32))),
    case("partials_max", ReduceMax((0,)), Normal((4096, 20))),
    case("partials_inner", ReduceSum((0, 2)), Normal((16, 3, 4100))),
]
TARGETS = {name: find_target(name) for name in ("x86", "x86-64-v3")}


def natural(shape: tuple[int, ...]) -> Storage:
    return Storage.channels_last(shape) if len(shape) == 4 else Storage.row_major(shape)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("layout", ["row_major", "natural", "other"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_reduction_agrees_with_the_reference(case: OpCase, layout: str, target: str):
    arrays = case.arrays()
    group = op_group(case.op, case.types)
    storage = {}
    for value in (*group.inputs, *group.outputs):
        shape = value.type.shape
        seed = {"row_major": 0, "other": 3}.get(layout)
        storage[value] = natural(shape) if seed is None else some_storage(shape, seed, panels=False)
    memory = memory_of(group, arrays, storage)
    lowering = lower_reduction(Request(group, storage, {}, TARGETS[target]))
    if lowering is None:
        assert layout == "other", "results that are kept in another order than the operand's"
        return
    run_lowering(lowering, memory, TARGETS[target])
    for value, expected in zip(group.outputs, case.op.reference(*arrays), strict=True):
        assert_agrees(case.op, storage[value].unpack(memory[value], value.type.shape), expected)


def test_few_results_of_a_large_tensor_are_made_of_partials():
    for name, kernels in (("reduce_sum/partials_along", 2), ("reduce_sum/rows", 1)):
        (found,) = (c for c in CASES if c.name == name)
        group = op_group(found.op, found.types)
        storage = {value: Storage.row_major(value.type.shape) for value in (*group.inputs, *group.outputs)}
        lowering = lower_reduction(Request(group, storage, {}, TARGETS["x86"]))
        assert len(lowering.calls) == kernels
        assert (lowering.calls[0].tasks > 1) == (kernels == 2)


@pytest.mark.parametrize("target", TARGETS)
def test_a_mean_of_many_positions_loses_no_digit(target: str):
    """In chains of 896 additions, as it once was, the error is 2e-7."""
    shape = (3584, 8)
    found = case("positions", ReduceMean((0,)), Uniform(shape, 0, 1))
    (x,) = found.arrays()
    group = op_group(found.op, found.types)
    storage = {value: Storage.row_major(value.type.shape) for value in (*group.inputs, *group.outputs)}
    memory = memory_of(group, [x], storage)
    lowering = lower_reduction(Request(group, storage, {}, TARGETS[target]))
    assert len(lowering.calls) == 1
    run_lowering(lowering, memory, TARGETS[target])
    errors = memory[group.outputs[0]] / x.mean(0, dtype=np.float64) - 1
    assert np.sqrt(np.mean(errors**2)) < 1e-7
