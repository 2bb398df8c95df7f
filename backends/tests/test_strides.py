"""Loop nests walk every tensor as its storage says; and kernels made of them, over drawn shapes, storages and axes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.backends.targets import find_target
from edgec.backends.tvm.strategies import lower_group
from edgec.backends.tvm.strides import Strides, common_dims, even_windows, extents_of, make_nest, strides_of
from edgec.graph.ops.add import Add
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.types import DType, TensorType
from edgec.runtime.abi import Storage
from edgec.tools.testing.kernel_call import run_lowering
from edgec.tools.testing.op_group import memory_of, op_group
from edgec.tools.testing.strategies import broadcastable_pairs, shape_and_axes, shapes

TARGET = find_target("x86-64-v3")


@st.composite
def storages(draw: st.DrawFn, shape: tuple[int, ...]) -> Storage:
    perm = tuple(draw(st.permutations(range(len(shape)))))
    return Storage(shape, perm, draw(st.sampled_from((0, 0, 2, 3))) if len(shape) > 1 else 0)


def positions(storage: Storage) -> np.ndarray:
    """Logical array of the offset of each element."""
    offsets = np.empty(storage.size, np.int64)
    offsets[storage.pack(np.arange(storage.size).reshape(storage.dims))] = np.arange(storage.size)
    return offsets.reshape(storage.dims)


def walk(strides: Strides) -> np.ndarray:
    index = np.indices(strides.dims).reshape(len(strides.dims), max(1, np.prod(strides.dims, dtype=int)))
    return strides.base + np.tensordot(np.array(strides.strides, np.int64), index, 1)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_strides_follow_the_storage_in_every_window(data: st.DataObject):
    shape = data.draw(shapes(min_rank=1))
    storage = data.draw(storages(shape))
    windows = even_windows(shape, [storage])
    seen = []
    for window in windows:
        strides = strides_of(storage, window)
        expected = positions(storage)[tuple(slice(*part) for part in window)]
        np.testing.assert_array_equal(walk(strides), expected.reshape(-1))
        seen.append(expected.size)
    assert sum(seen) == storage.size


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_nest_visits_the_same_elements_of_all_tensors_together(data: st.DataObject):
    shape = data.draw(shapes(min_rank=1))
    drawn = [data.draw(storages(shape)) for _ in range(2)]
    windows = even_windows(shape, drawn)
    for window in windows or ():
        tensors = [strides_of(storage, window) for storage in drawn]
        nest = make_nest(tensors) if None not in tensors else None
        if nest is None:
            assert len({storage.block for storage in drawn} - {0}) == 2, "panels of one width always fit together"
            continue
        pairs = set(zip(*(walk(tensor).tolist() for tensor in nest.tensors), strict=True))
        box = tuple(slice(*part) for part in window)
        expected = set(zip(*(positions(storage)[box].reshape(-1).tolist() for storage in drawn), strict=True))
        assert pairs == expected
        assert nest.size == np.prod(extents_of(window))


def test_splits_that_do_not_fit_together_have_no_common_dims():
    assert common_dims([(6, 4), (24,)]) == (6, 4)
    assert common_dims([(6, 4), (2, 3, 4)]) == (2, 3, 4)
    assert common_dims([(6, 4), (3, 8)]) == (3, 2, 4)
    assert common_dims([(4, 6), (8, 3)]) == (4, 2, 3)
    assert common_dims([(4, 9), (9, 4)]) is None


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_add_of_any_shapes_and_storages(data: st.DataObject):
    shapes_of = data.draw(broadcastable_pairs(max_extent=9))
    arrays = [np.random.default_rng(i).standard_normal(s).astype(np.float32) for i, s in enumerate(shapes_of)]
    group = op_group(Add(), [TensorType(DType.F32, s) for s in shapes_of])
    storage = {value: data.draw(storages(value.type.shape)) for value in (*group.inputs, *group.outputs)}
    memory = memory_of(group, arrays, storage)
    run_lowering(lower_group(group, storage, {}, TARGET), memory, TARGET)
    (y,) = group.outputs
    np.testing.assert_array_equal(storage[y].unpack(memory[y], y.type.shape), arrays[0] + arrays[1])


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_sum_over_any_axes_and_storages(data: st.DataObject):
    shape, axes = data.draw(shape_and_axes())
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    op = ReduceSum(axes, keepdims=data.draw(st.booleans()))
    group = op_group(op, [TensorType(DType.F32, shape)])
    storage = {value: data.draw(storages(value.type.shape)) for value in (*group.inputs, *group.outputs)}
    memory = memory_of(group, [x], storage)
    run_lowering(lower_group(group, storage, {}, TARGET), memory, TARGET)
    (y,) = group.outputs
    np.testing.assert_allclose(storage[y].unpack(memory[y], y.type.shape), *op.reference(x), rtol=1e-5, atol=1e-5)
