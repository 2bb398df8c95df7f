"""Ops that move data: reshape, transpose, concat, slice, pad, broadcast_to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgec.graph.errors import UserError
from edgec.graph.ops import BroadcastTo, Concat, Pad, Reshape, Slice, Transpose
from edgec.graph.ops.base import ChannelRule, Cost, Tolerance
from edgec.graph.types import DType, tensor
from edgec.tools.testing.against_torch import check_against_torch
from edgec.tools.testing.gradcheck import check_vjp, vjp_gradients
from edgec.tools.testing.strategies import normal, shapes, slices

torch.set_num_threads(1)


def torch_pad(low: tuple[int, ...], high: tuple[int, ...], value: float):
    pairs = [n for pair in reversed(list(zip(low, high, strict=True))) for n in pair]  # torch begins at the last axis
    return lambda x: torch.nn.functional.pad(x, pairs, value=value) if pairs else x.clone()


@given(shape=shapes(min_extent=0), seed=st.integers(0, 99), data=st.data())
def test_reshape_agrees_with_torch(shape, seed, data):
    order = data.draw(st.permutations(shape))
    target = (1, *order)
    check_against_torch(Reshape(target), lambda x: torch.reshape(x, target), normal(shape, seed))


@given(shape=shapes(min_extent=0), seed=st.integers(0, 99), data=st.data())
def test_transpose_agrees_with_torch(shape, seed, data):
    perm = tuple(data.draw(st.permutations(range(len(shape)))))
    check_against_torch(Transpose(perm), lambda x: torch.permute(x, perm), normal(shape, seed))


@given(shape=shapes(min_rank=1), extents=st.lists(st.integers(0, 3), min_size=1, max_size=4), data=st.data())
def test_concat_agrees_with_torch(shape, extents, data):
    axis = data.draw(st.integers(0, len(shape) - 1))
    parts = [normal((*shape[:axis], n, *shape[axis + 1 :]), seed) for seed, n in enumerate(extents)]
    check_against_torch(Concat(axis), lambda *xs: torch.cat(xs, axis), *parts)


@given(case=slices(), seed=st.integers(0, 99))
def test_slice_agrees_with_torch(case, seed):
    shape, bounds = case
    op = Slice(*(tuple(column) for column in zip(*bounds, strict=True)))
    check_against_torch(op, lambda x: x[tuple(slice(*b) for b in bounds)].clone(), normal(shape, seed))


@given(shape=shapes(), seed=st.integers(0, 99), data=st.data())
def test_pad_agrees_with_torch(shape, seed, data):
    widths = st.lists(st.integers(0, 3), min_size=len(shape), max_size=len(shape)).map(tuple)
    low, high, value = data.draw(widths), data.draw(widths), data.draw(st.sampled_from([0.0, -1.5, np.inf]))
    check_against_torch(Pad(low, high, value), torch_pad(low, high, value), normal(shape, seed))


@given(shape=shapes(max_rank=3), seed=st.integers(0, 99), data=st.data())
def test_broadcast_to_agrees_with_torch(shape, seed, data):
    repeated = [data.draw(st.integers(0, 3)) if n == 1 else n for n in shape]
    target = (*data.draw(shapes(max_rank=2)), *repeated)
    check_against_torch(BroadcastTo(target), lambda x: x.expand(target).clone(), normal(shape, seed))


@pytest.mark.parametrize(
    ("op", "shape"),
    [
        (Reshape((3, 2, 1)), (2, 3)),
        (Reshape(()), (1, 1)),
        (Transpose((2, 0, 1)), (2, 3, 2)),
        (Slice((1, 0), (3, 2), (1, 1)), (4, 2)),
        (Slice((1, 0), (6, 5), (2, 3)), (6, 5)),
        (Slice((0, 0), (5, 2), (4, 1)), (5, 2)),  # one element of a step that reaches beyond the end
        (Slice((2,), (2,), (3,)), (4,)),  # nothing at all
        (Pad((1, 0), (0, 2), 3.0), (2, 3)),
        (BroadcastTo((2, 3, 4)), (3, 1)),
    ],
    ids=str,
)
def test_gradient_is_that_of_finite_differences(op, shape):
    check_vjp(op, normal(shape))


def test_gradient_of_concat_is_that_of_finite_differences():
    check_vjp(Concat(1), normal((2, 1), 1), normal((2, 3), 2), normal((2, 2), 3))


def test_concat_cuts_only_the_gradients_that_are_wanted():
    parts = [normal((2,), 1), normal((3,), 2)]
    first, second = vjp_gradients(Concat(0), parts, [np.arange(5.0)], wanted=[False, True])
    assert first is None
    np.testing.assert_array_equal(second, [2.0, 3.0, 4.0])


@pytest.mark.parametrize(
    ("op", "shape"),
    [(Reshape((3, 2)), (2, 3)), (Transpose((1, 0)), (2, 3)), (Concat(0), (2, 3)), (BroadcastTo((2, 2, 3)), (2, 3))]
    + [(Slice((0, 1), (2, 3), (1, 2)), (2, 3)), (Pad((1, 0), (0, 1), 1.0), (2, 3))],
    ids=str,
)
@pytest.mark.parametrize("dtype", [d for d in DType if d is not DType.F64], ids=lambda d: d.value)
def test_every_dtype_moves_unchanged(op, shape, dtype):
    x = np.arange(6).reshape(shape).astype(dtype.numpy)
    kind = tensor(dtype, *shape)
    (y,) = op.reference(x)
    (inferred,) = op.infer(kind)
    assert (y.dtype, y.shape) == (inferred.dtype.numpy, inferred.shape)
    (wide,) = op.reference(x.astype(np.float64))
    np.testing.assert_array_equal(y.astype(np.float64), wide)


def test_references_do_not_alias_their_operands():
    x = np.zeros((2, 2))
    ops = (Reshape((4,)), Transpose((0, 1)), Slice((0, 0), (2, 2), (1, 1)), Pad((0, 0), (0, 0)), BroadcastTo((2, 2)))
    for op in (*ops, Concat(0)):
        (y,) = op.reference(x)
        assert not np.shares_memory(x, y), op


F23 = tensor(DType.F32, 2, 3)


@pytest.mark.parametrize(
    ("op", "inputs", "message", "hint"),
    [
        (Reshape((4,)), (F23,), "4 elements, the operand 6", None),
        (Reshape((-1, 3)), (F23,), "negative extent", "resolve -1"),
        (Reshape((6,)), (F23, F23), "takes 1 operand, 2 given", None),
        (Transpose((0, 0)), (F23,), "does not permute", "each of 0 to 1 once"),
        (Transpose((1, 2)), (F23,), "does not permute", "each of 0 to 1 once"),
        (Transpose((0,)), (tensor(DType.F32),), "does not permute", r"perm \(\)"),
        (Concat(0), (), "at least one operand", None),
        (Concat(2), (F23,), "axis 2 is out of range", "the rank is 2"),
        (Concat(-1), (F23,), "axis -1 is out of range", "count it from the front: 1"),
        (Concat(0), (F23, tensor(DType.F32, 2, 4)), "does not continue", "all extents but that of axis 0"),
        (Concat(0), (F23, tensor(DType.F32, 2)), "does not continue", "all extents but that of axis 0"),
        (Concat(0), (F23, tensor(DType.F64, 2, 3)), "differ in dtype", "cast"),
        (Slice((0,), (2,), (1,)), (F23,), "1 entries for rank 2", "one entry for each axis"),
        (Slice((0, 0), (2, 3), (1,)), (F23,), "1 entries for rank 2", "one entry for each axis"),
        (Slice((0, 0), (2, 4), (1, 1)), (F23,), "0:4 does not lie within axis 1", "normalised"),
        (Slice((-1, 0), (2, 3), (1, 1)), (F23,), "-1:2 does not lie within axis 0", "normalised"),
        (Slice((0, 2), (2, 1), (1, 1)), (F23,), "2:1 does not lie within axis 1", "normalised"),
        (Slice((0, 0), (2, 3), (0, 1)), (F23,), "step 0 of axis 0 is not positive", None),
        (Pad((0,), (0, 0)), (F23,), "low=.* has 1 entries", "one entry for each axis"),
        (Pad((0, 0), (0, 0, 0)), (F23,), "high=.* has 3 entries", "one entry for each axis"),
        (Pad((0, -1), (0, 0)), (F23,), "negative", "cut with slice"),
        (Pad((0,), (1,), 0.5), (tensor(DType.I32, 2),), "value 0.5 is no i32", None),
        (Pad((0,), (1,), 300.0), (tensor(DType.U8, 2),), "value 300.0 is no u8", None),
        (Pad((0,), (1,), np.nan), (tensor(DType.I32, 2),), "value nan is no i32", None),
        (Pad((0,), (1,), -np.inf), (tensor(DType.I8, 2),), "value -inf is no i8", None),
        (Pad((0,), (1,), 2.0), (tensor(DType.BOOL, 2),), "value 2.0 is no bool", None),
        (BroadcastTo((3,)), (F23,), "does not broadcast", "only an extent of 1"),
        (BroadcastTo((1, 3)), (F23,), "does not broadcast", "only an extent of 1"),
        (BroadcastTo((2, 4)), (F23,), "extents 3 and 4 meet", None),
        (BroadcastTo((-2, 3)), (F23,), "negative extent", "static"),
    ],
    ids=str,
)
def test_type_errors(op, inputs, message, hint):
    with pytest.raises(UserError, match=message) as caught:
        op.infer(*inputs)
    assert caught.value.code == "E0201"
    if hint is not None:
        with pytest.raises(UserError, match=f"hint: .*{hint}"):
            raise caught.value


def test_channel_rules_depend_on_attributes():
    assert Transpose((0, 1, 3, 2)).channel_rule is ChannelRule.PASS
    assert Transpose((0, 2, 3, 1)).channel_rule is ChannelRule.BLOCK
    assert Transpose((0,)).channel_rule is ChannelRule.BLOCK
    assert Pad((0, 0, 1, 1), (0, 0, 1, 1)).channel_rule is ChannelRule.PASS
    assert Pad((0, 1, 0, 0), (0, 0, 0, 0)).channel_rule is ChannelRule.BLOCK
    assert Pad((0, 0, 0, 0), (0, 1, 0, 0)).channel_rule is ChannelRule.BLOCK
    for op in (Reshape((6,)), Concat(0), Slice((0,), (1,), (1,))):
        assert op.channel_rule is ChannelRule.BLOCK


def test_costs_and_tolerances():
    assert Reshape((6,)).cost((F23,), (tensor(DType.F32, 6),)) == Cost(0, 0)
    assert Transpose((1, 0)).cost((F23,), (tensor(DType.F32, 3, 2),)) == Cost(0, 48)
    for op in (Reshape((6,)), Transpose((1, 0)), Concat(0), Pad((0, 0), (1, 1)), BroadcastTo((2, 3))):
        assert op.tolerance is Tolerance.EXACT
