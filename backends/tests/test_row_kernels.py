"""Vector kernels for norms of rows and for gathers of slices, against the ops' references."""

import numpy as np
import pytest
from cases import indexing, normalisation
from cases.op_case import Normal, OpCase, Positive, assert_agrees, case

from edgec.backends.base import Group
from edgec.backends.targets import find_target
from edgec.backends.tvm.gathers import lower_gather
from edgec.backends.tvm.products import Request
from edgec.backends.tvm.row_norms import lower_row_norm
from edgec.graph.ops.gather import Gather
from edgec.graph.ops.layer_norm import LayerNorm
from edgec.graph.ops.rms_norm import RmsNorm
from edgec.graph.types import DType, TensorType
from edgec.runtime.abi import Storage
from edgec.tools.testing.kernel_call import run_lowering
from edgec.tools.testing.op_group import memory_of, op_group

NORMS = [
    *(found for found in normalisation.CASES if isinstance(found.op, LayerNorm | RmsNorm)),
    case("many", LayerNorm(1), Normal((70, 384)), Positive((384,)), Normal((384,))),
    case("far", RmsNorm(2), Normal((1, 3, 19), scale=1e3)),
]
GATHERS = [c for c in indexing.CASES if isinstance(c.op, Gather)]
TARGETS = [find_target(name) for name in ("x86", "x86-64-v3")]


def row_major(group: Group) -> dict:
    return {value: Storage.row_major(value.type.shape) for value in (*group.inputs, *group.outputs)}


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("found", NORMS, ids=str)
def test_norms_agree_with_the_reference(found: OpCase, target):
    arrays = found.arrays()
    group = op_group(found.op, found.types)
    memory = memory_of(group, arrays, row_major(group))
    run_lowering(lower_row_norm(Request(group, row_major(group), {}, target)), memory, target)
    for value, expected in zip(group.outputs, found.op.reference(*arrays), strict=True):
        assert_agrees(found.op, memory[value].reshape(value.type.shape), expected)


@pytest.mark.parametrize("op", [LayerNorm(1), RmsNorm(1)], ids=lambda op: op.name)
def test_a_norm_in_place_without_its_statistics(op: LayerNorm | RmsNorm):
    found = case("rows", op, Normal((9, 37)), Positive((37,)))
    arrays = found.arrays()
    whole = op_group(found.op, found.types)
    group = Group(whole.nodes, whole.inputs, whole.outputs[:1])
    (y,) = group.outputs
    memory = memory_of(group, arrays, row_major(group))
    memory[y] = memory[group.inputs[0]]
    lowering = lower_row_norm(Request(group, row_major(group), {y: group.inputs[0]}, TARGETS[0]))
    run_lowering(lowering, memory, TARGETS[0])
    assert_agrees(op, memory[y].reshape(y.type.shape), op.reference(*arrays)[0])


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("nhwc", [False, True])
@pytest.mark.parametrize("found", GATHERS, ids=str)
def test_gathers_equal_the_reference(found: OpCase, nhwc: bool, target):
    arrays = found.arrays()
    group = op_group(found.op, found.types)
    x, (y,) = group.inputs[0], group.outputs
    storage = row_major(group)
    if nhwc and (x.type.rank, y.type.rank) == (4, 4):
        storage |= {value: Storage.channels_last(value.type.shape) for value in (x, y)}
    memory = memory_of(group, arrays, storage)
    run_lowering(lower_gather(Request(group, storage, {}, target)), memory, target)
    np.testing.assert_array_equal(storage[y].unpack(memory[y], y.type.shape), found.op.reference(*arrays)[0])


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_a_map_is_enlarged_in_many_tasks(axis: int):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 33, 40, 41)).astype(np.float32)
    positions = rng.integers(-45, 45, 77)  # some from the end, some outside
    op = Gather(axis)
    found = [np.asarray(x), positions]
    group = op_group(op, [_type(array) for array in found])
    storage = row_major(group)
    storage |= {v: Storage.channels_last(v.type.shape) for v in (group.inputs[0], group.outputs[0])}
    lowering = lower_gather(Request(group, storage, {}, TARGETS[0]))
    assert lowering.calls[0].tasks > 4
    memory = memory_of(group, found, storage)
    run_lowering(lowering, memory, TARGETS[0])
    (y,) = group.outputs
    np.testing.assert_array_equal(storage[y].unpack(memory[y], y.type.shape), op.reference(*found)[0])


def _type(array: np.ndarray) -> TensorType:
    return TensorType(DType.of(array.dtype), array.shape)
