"""Elementwise ops: type rules, references and gradients against torch and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgec.graph.errors import UserError
from edgec.graph.ops import (
    Add,
    Clip,
    ClipGrad,
    Div,
    Exp,
    HardSigmoid,
    HardSigmoidGrad,
    HardSwish,
    HardSwishGrad,
    Mul,
    Relu,
    ReluGrad,
    Sigmoid,
    SigmoidGrad,
    Sub,
)
from edgec.graph.ops.base import ChannelRule, Op, Tolerance
from edgec.graph.types import DType, TensorType, tensor
from edgec.tools.testing.against_torch import check_against_torch
from edgec.tools.testing.gradcheck import check_vjp, vjp_gradients
from edgec.tools.testing.strategies import broadcastable_pairs, normal, off_kinks, shapes

torch.set_num_threads(1)

BINARY = {Add(): torch.add, Sub(): torch.sub, Mul(): torch.mul, Div(): torch.div}

# op, counterpart, where it has kinks
UNARY = [
    (Relu(), torch.relu, (0.0,)),
    (Sigmoid(), torch.sigmoid, ()),
    (Exp(), torch.exp, ()),
    (HardSwish(), torch.nn.functional.hardswish, (-3.0, 3.0)),
    (Clip(-1.0, 0.5), lambda x: torch.clamp(x, -1.0, 0.5), (-1.0, 0.5)),
    (Clip(-np.inf, 0.5), lambda x: torch.clamp(x, max=0.5), (0.5,)),
    (Clip(0.0, 6.0), torch.nn.functional.relu6, (0.0, 6.0)),
    # Not torch.hardsigmoid, whose f64 gradient is scaled by an f32 sixth.
    (HardSigmoid(1 / 6, 0.5), lambda x: torch.nn.functional.relu6(x + 3) / 6, (-3.0, 3.0)),
    (HardSigmoid(0.2, 0.5), lambda x: torch.clamp(0.2 * x + 0.5, 0, 1), (-2.5, 2.5)),
]
GRADS: list[Op] = [ReluGrad(), SigmoidGrad(), ClipGrad(0.0, 6.0), HardSigmoidGrad(0.2), HardSwishGrad()]


def unary_ids(case: object) -> str | None:
    return str(case) if isinstance(case, Op) else None


@pytest.mark.parametrize(("op", "counterpart"), BINARY.items(), ids=lambda case: getattr(case, "__name__", str(case)))
@given(pair=broadcastable_pairs(), seed=st.integers(0, 99))
def test_binary_agrees_with_torch(op, counterpart, pair, seed):
    a, b = normal(pair[0], seed), off_kinks(normal(pair[1], seed + 1), 0.0, margin=0.1)
    check_against_torch(op, counterpart, a, b, seed=seed)


@pytest.mark.parametrize("op", BINARY, ids=str)
@pytest.mark.parametrize(
    ("a", "b"), [((2, 3), (2, 3)), ((2, 3, 2), (3, 1)), ((3, 1), (2, 1, 4)), ((), (2, 2)), ((1, 1), (3,)), ((), ())]
)
def test_binary_gradient_is_that_of_finite_differences(op, a, b):
    check_vjp(op, normal(a, 1), off_kinks(normal(b, 2), 0.0, margin=0.2))


def test_binary_of_an_operand_with_itself():
    x = normal((3,))
    graph_gradients = vjp_gradients(Mul(), [x, x], [np.ones(3)])
    np.testing.assert_allclose(graph_gradients[0] + graph_gradients[1], 2 * x)


@pytest.mark.parametrize("op", BINARY, ids=str)
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((tensor(DType.F32, 2),), "takes 2 operands, 1 given"),
        ((tensor(DType.F32, 2), tensor(DType.F64, 2)), "operands differ in dtype: f32, f64"),
        ((tensor(DType.BOOL, 2), tensor(DType.BOOL, 2)), "not on bool"),
        ((tensor(DType.F32, 2, 3), tensor(DType.F32, 2)), "extents 2 and 3 meet at axis -1"),
        ((tensor(DType.F32, 4, 3, 1), tensor(DType.F32, 2, 1)), "extents 2 and 3 meet at axis -2"),
    ],
)
def test_binary_type_errors(op, inputs, message):
    with pytest.raises(UserError, match=message) as caught:
        op.infer(*inputs)
    assert caught.value.code == "E0201"
    assert caught.value.message.startswith(f"{op.name}(f32[" if "bool" not in message else f"{op.name}(bool[")


@pytest.mark.parametrize("op", [Add(), Sub(), Mul()], ids=str)
def test_integers_are_exact(op):
    a = np.array([2**53, -7], np.int64)
    b = np.array([1, 3], np.int64)
    (y,) = op.reference(a, b)
    python = {"add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul": lambda x, y: x * y}[op.name]
    assert y.dtype == np.int64
    assert y.tolist() == [python(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]


def test_integers_are_divided_toward_zero():
    a, b = np.array([7, -7, 7, -7, 5, -(2**31)], np.int32), np.array([2, 2, -2, -2, 0, 1], np.int32)
    assert Div().infer(tensor(DType.I32, 6), tensor(DType.I32, 6)) == (tensor(DType.I32, 6),)
    assert Div().reference(a, b)[0].tolist() == [3, -3, -3, 3, 0, -(2**31)]


def test_a_dimension_of_no_elements_broadcasts():
    assert Add().infer(tensor(DType.F32, 0, 3), tensor(DType.F32, 1, 3)) == (tensor(DType.F32, 0, 3),)
    check_against_torch(Mul(), torch.mul, np.zeros((0, 3)), np.ones((1, 3)))


@pytest.mark.parametrize(("op", "counterpart", "kinks"), UNARY, ids=unary_ids)
@given(shape=shapes(min_extent=0), seed=st.integers(0, 99))
def test_unary_agrees_with_torch(op, counterpart, kinks, shape, seed):
    check_against_torch(op, counterpart, off_kinks(3 * normal(shape, seed), *kinks), seed=seed)


@pytest.mark.parametrize(("op", "counterpart", "kinks"), UNARY, ids=unary_ids)
def test_unary_gradient_is_that_of_finite_differences(op, counterpart, kinks):
    x = off_kinks(3 * normal((40,), 3), *kinks)
    assert not kinks or x.min() < min(kinks) or x.max() > max(kinks)
    check_vjp(op, x)
    check_vjp(op, np.float64(0.25))


@pytest.mark.parametrize(("op", "counterpart", "kinks"), UNARY, ids=unary_ids)
def test_unary_passes_special_values_as_torch_does(op, counterpart, kinks):
    x = np.array([np.nan, np.inf, -np.inf, -0.0, 1e30, -1e30, 88.0, -104.0], np.float32)
    with np.errstate(all="ignore"):
        (y,) = op.reference(x)
    np.testing.assert_allclose(y, counterpart(torch.tensor(x)).numpy(), rtol=1e-6)


def test_sigmoid_keeps_relative_precision_in_its_tails():
    x = np.array([-80.0, -30.0, 30.0], np.float32)
    (y,) = Sigmoid().reference(x)
    np.testing.assert_allclose(y, 1 / (1 + np.exp(-x.astype(np.float64))), rtol=3e-7)


@pytest.mark.parametrize("case", [case for case in UNARY if case[2]], ids=lambda case: str(case[0]))
def test_nothing_passes_back_at_a_clipped_value(case):
    """On a bound itself the gradient is 0, as of torch's relu, relu6 and hardsigmoid."""
    op, _, kinks = case
    if isinstance(op, HardSwish):
        expected = [0.0, 1.0]  # torch: the outer branches hold the kinks
    else:
        expected = [0.0] * len(kinks)
    (dx,) = vjp_gradients(op, [np.array(kinks)], [np.ones(len(kinks))])
    np.testing.assert_array_equal(dx, expected)


@pytest.mark.parametrize("op", GRADS, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_grad_ops_keep_dtype_and_shape(op, dtype):
    dy, saved = normal((2, 3), 1, dtype), normal((2, 3), 2, dtype)
    (dx,) = op.reference(dy, saved)
    kind = TensorType(DType.of(dtype), (2, 3))
    assert (dx.dtype, dx.shape) == (dtype, (2, 3))
    assert op.infer(kind, kind) == (kind,)


@pytest.mark.parametrize("op", GRADS, ids=str)
def test_grad_ops_stop_what_is_not_finite(op):
    """Where the forward op was flat, an infinite gradient gives 0, not NaN."""
    dy = np.array([np.inf, np.inf])
    saved = np.array([-4.0, -5.0])
    if isinstance(op, SigmoidGrad):
        return  # flat nowhere
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(op.reference(dy, saved)[0], [0.0, 0.0])


@pytest.mark.parametrize("op", GRADS, ids=str)
def test_grad_ops_refuse_operands_that_differ(op):
    with pytest.raises(UserError, match="one dtype and shape"):
        op.infer(tensor(DType.F32, 2, 1), tensor(DType.F32, 2, 3))
    with pytest.raises(UserError, match="one dtype and shape"):
        op.infer(tensor(DType.F32, 2), tensor(DType.F64, 2))
    with pytest.raises(UserError, match="takes 2 operands"):
        op.infer(tensor(DType.F32, 2))
    assert op.no_gradient


@pytest.mark.parametrize(("op", "counterpart", "kinks"), UNARY, ids=unary_ids)
def test_unary_type_errors(op, counterpart, kinks):
    with pytest.raises(UserError, match="is defined on (floats|numbers), not on bool"):
        op.infer(tensor(DType.BOOL, 2))
    with pytest.raises(UserError, match="takes 1 operand, 2 given"):
        op.infer(tensor(DType.F32, 2), tensor(DType.F32, 2))


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.0), (np.nan, 1.0), (0.0, np.nan)])
def test_clip_refuses_an_empty_interval(low, high):
    with pytest.raises(UserError, match="is not below"):
        Clip(low, high).infer(tensor(DType.F32, 2))


@pytest.mark.parametrize("op", [*BINARY, *(case[0] for case in UNARY), *GRADS], ids=str)
def test_what_fusion_and_slicing_read(op):
    assert op.elementwise
    assert op.channel_rule is ChannelRule.PASS
    x = tensor(DType.F32, 4, 2)
    inputs = (x,) * (1 if op in [case[0] for case in UNARY] else 2)
    assert op.cost(inputs, (x,)).macs == 0
    assert op.cost(inputs, (x,)).bytes == 32 * (len(inputs) + 1)
    exact = isinstance(op, Relu | Clip | ReluGrad | ClipGrad)
    assert op.tolerance is (Tolerance.EXACT if exact else Tolerance.ROUNDING)
