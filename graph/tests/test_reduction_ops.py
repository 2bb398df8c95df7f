"""Reductions and softmax."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgec.graph.errors import UserError
from edgec.graph.ops import ReduceMax, ReduceMean, ReduceSum, Softmax
from edgec.graph.ops.base import ChannelRule, Tolerance
from edgec.graph.types import DType, tensor
from edgec.tools.testing.against_torch import check_against_torch
from edgec.tools.testing.gradcheck import check_vjp, vjp_gradients
from edgec.tools.testing.strategies import normal, shape_and_axes, shapes

torch.set_num_threads(1)

REDUCTIONS = {ReduceSum: torch.sum, ReduceMean: torch.mean, ReduceMax: torch.amax}


def counterpart(function, axes, keepdims):
    """torch takes no axes for all axes; here it is none of them."""
    return lambda x: function(x, axes, keepdim=keepdims) if axes else x.clone()


@pytest.mark.parametrize("cls", REDUCTIONS)
@given(case=shape_and_axes(), keepdims=st.booleans(), seed=st.integers(0, 99))
def test_reductions_agree_with_torch(cls, case, keepdims, seed):
    shape, axes = case
    check_against_torch(cls(axes, keepdims), counterpart(REDUCTIONS[cls], axes, keepdims), normal(shape, seed))


@pytest.mark.parametrize("cls", REDUCTIONS)
@pytest.mark.parametrize("axes", [(), (0,), (1,), (0, 2), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("keepdims", [False, True])
def test_gradients_are_those_of_finite_differences(cls, axes, keepdims):
    check_vjp(cls(axes, keepdims), normal((2, 3, 2)))


def test_a_scalar_is_reduced_over_no_axes():
    for cls in REDUCTIONS:
        assert cls(()).infer(tensor(DType.F32)) == (tensor(DType.F32),)
        check_vjp(cls(()), np.float64(2.0))


def test_the_gradient_of_a_maximum_goes_to_the_first_of_equal_elements():
    x = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    (dx,) = vjp_gradients(ReduceMax((1,)), [x], [np.array([5.0, 7.0])])
    np.testing.assert_array_equal(dx, [[0, 5, 0], [7, 0, 0]])


def test_sum_of_nothing_is_zero_and_has_an_empty_gradient():
    (y,) = ReduceSum((1,)).reference(np.zeros((2, 0)))
    np.testing.assert_array_equal(y, [0, 0])
    (dx,) = vjp_gradients(ReduceSum((1,)), [np.zeros((2, 0))], [np.ones(2)])
    assert dx.shape == (2, 0)


def test_maximum_of_nan_is_nan():
    assert np.isnan(ReduceMax((0,)).reference(np.array([1.0, np.nan, 2.0]))[0])


@pytest.mark.parametrize("cls", [ReduceSum, ReduceMax])
@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64])
def test_integers_keep_their_dtype(cls, dtype):
    (y,) = cls((0,)).reference(np.array([[1, -2], [3, 4]], dtype))
    assert y.dtype == dtype
    assert y.tolist() == ([4, 2] if cls is ReduceSum else [3, 4])


@given(shape=shapes(min_rank=1), seed=st.integers(0, 99), data=st.data())
def test_softmax_agrees_with_torch(shape, seed, data):
    axis = data.draw(st.integers(0, len(shape) - 1))
    check_against_torch(Softmax(axis), lambda x: torch.softmax(x, axis), 3 * normal(shape, seed))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_softmax_gradient_is_that_of_finite_differences(axis):
    check_vjp(Softmax(axis), normal((2, 3, 2)))


def test_softmax_does_not_overflow():
    (y,) = Softmax(0).reference(np.array([1e4, 1e4, -1e4], np.float32))
    np.testing.assert_array_equal(y, np.array([0.5, 0.5, 0], np.float32))


def test_softmax_of_nothing():
    assert Softmax(1).reference(np.zeros((2, 0), np.float32))[0].shape == (2, 0)


F23 = tensor(DType.F32, 2, 3)


@pytest.mark.parametrize(
    ("op", "kind", "message"),
    [
        (ReduceSum((2,)), F23, "axis 2 is out of range(.|\n)*hint: the rank is 2"),
        (ReduceSum((-1,)), F23, "axis -1 is out of range(.|\n)*hint: count it from the front: 1"),
        (ReduceSum((1, 0)), F23, "are not ascending(.|\n)*hint: name each axis once, in order"),
        (ReduceSum((1, 1)), F23, "are not ascending"),
        (ReduceSum((0,)), tensor(DType.BOOL, 2), "defined on numbers, not on bool"),
        (ReduceMean((0,)), tensor(DType.I32, 2), "defined on floats, not on i32"),
        (ReduceMean((0,)), tensor(DType.F32, 0, 2), "the mean over axes .* is one of no elements"),
        (ReduceMax((0,)), tensor(DType.F32, 0, 2), "the maximum over axes .* is one of no elements"),
        (Softmax(2), F23, "axis 2 is out of range"),
        (Softmax(-1), F23, "count it from the front: 1"),
        (Softmax(0), tensor(DType.I32, 2), "defined on floats"),
        (Softmax(0), tensor(DType.F32), "axis 0 is out of range"),
    ],
    ids=str,
)
def test_type_errors(op, kind, message):
    with pytest.raises(UserError, match=message) as caught:
        op.infer(kind)
    assert caught.value.code == "E0201"
    with pytest.raises(UserError, match="takes 1 operand, 2 given"):
        op.infer(kind, kind)


def test_channel_rules_depend_on_attributes():
    assert ReduceMean((2, 3), keepdims=True).channel_rule is ChannelRule.PASS
    assert ReduceMean((2, 3)).channel_rule is ChannelRule.PASS
    assert ReduceSum((0, 2)).channel_rule is ChannelRule.BLOCK  # channels end up at axis 0
    assert ReduceSum((0,), keepdims=True).channel_rule is ChannelRule.PASS
    assert ReduceMax((1,), keepdims=True).channel_rule is ChannelRule.BLOCK
    assert Softmax(1).channel_rule is ChannelRule.BLOCK
    assert Softmax(0).channel_rule is ChannelRule.PASS


def test_tolerances():
    assert ReduceMax((0,)).tolerance is Tolerance.EXACT
    for op in (ReduceSum((0,)), ReduceMean((0,)), Softmax(0)):
        assert op.tolerance is Tolerance.ACCUMULATION
        assert not op.elementwise
