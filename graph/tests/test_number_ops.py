"""Functions of numbers, comparisons, bits, choices and casts: references and gradients against torch, every dtype."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgec.graph.errors import UserError
from edgec.graph.ops import (
    Abs,
    Acos,
    Acosh,
    Asin,
    Asinh,
    Atan,
    Atanh,
    BitAnd,
    BitOr,
    BitXor,
    Cast,
    Ceil,
    Clip,
    Cos,
    Cosh,
    Equal,
    Erf,
    Floor,
    Fmod,
    Less,
    LessEqual,
    Log,
    Maximum,
    Minimum,
    Mod,
    Neg,
    Pow,
    Round,
    ShiftLeft,
    ShiftRight,
    Sign,
    Sin,
    Sinh,
    Sqrt,
    Tan,
    Tanh,
    Where,
)
from edgec.graph.types import DType, tensor
from edgec.tools.testing.against_torch import check_against_torch
from edgec.tools.testing.gradcheck import check_vjp
from edgec.tools.testing.strategies import normal, off_kinks

torch.set_num_threads(1)

# op, counterpart, where it is defined, whether it has a gradient here
UNARY = [
    (Neg(), torch.neg, (-3, 3), True),
    (Abs(), torch.abs, (-3, 3), True),
    (Sqrt(), torch.sqrt, (0.1, 9), True),
    (Log(), torch.log, (0.1, 9), True),
    (Erf(), torch.erf, (-3, 3), True),
    (Tanh(), torch.tanh, (-3, 3), True),
    (Sin(), torch.sin, (-9, 9), True),
    (Sign(), torch.sign, (-3, 3), False),
    (Floor(), torch.floor, (-3, 3), False),
    (Ceil(), torch.ceil, (-3, 3), False),
    (Round(), torch.round, (-3, 3), False),
    (Cos(), torch.cos, (-9, 9), True),
    (Tan(), torch.tan, (-1.4, 1.4), True),
    (Asin(), torch.asin, (-0.95, 0.95), True),
    (Acos(), torch.acos, (-0.95, 0.95), True),
    (Atan(), torch.atan, (-9, 9), True),
    (Sinh(), torch.sinh, (-3, 3), True),
    (Cosh(), torch.cosh, (-3, 3), True),
    (Asinh(), torch.asinh, (-9, 9), True),
    (Acosh(), torch.acosh, (1.1, 9), True),
    (Atanh(), torch.atanh, (-0.9, 0.9), True),
]
BINARY = [
    (Minimum(), torch.minimum),
    (Maximum(), torch.maximum),
    (Mod(), torch.remainder),
    (Fmod(), torch.fmod),
    (Equal(), torch.eq),
    (Less(), torch.lt),
    (LessEqual(), torch.le),
]
INTEGERS = (np.int8, np.uint8, np.int32, np.int64)


def integers(dtype: type, seed: int, low: int = -9) -> np.ndarray:
    return np.random.default_rng(seed).integers(max(low, np.iinfo(dtype).min), 10, 40).astype(dtype)


def uniform(bounds: tuple[float, float]) -> np.ndarray:
    return off_kinks(np.random.default_rng(5).uniform(*bounds, (4, 13)), 0.0)


def ids(case: object) -> str:
    """Names in place of what would print as an address."""
    return getattr(case, "__name__", str(case))


@pytest.mark.parametrize(("op", "counterpart", "bounds", "differentiable"), UNARY, ids=ids)
def test_unary(op, counterpart, bounds, differentiable):
    x = uniform(bounds)
    if differentiable:
        check_vjp(op, x)
    else:
        assert op.no_gradient
    if differentiable:
        check_against_torch(op, counterpart, x)
        return
    np.testing.assert_allclose(op.reference(x)[0], counterpart(torch.tensor(x)).numpy(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("op", "counterpart"), BINARY, ids=ids)
@pytest.mark.parametrize("dtype", [*INTEGERS, np.float32, np.float64])
def test_binary(op, counterpart, dtype):
    if np.dtype(dtype).kind == "f":
        a, b = normal((6, 1, 5), 1, dtype), off_kinks(normal((7, 1), 2, dtype), 0.0, margin=0.1).astype(dtype)
        b[0] = a[0, 0, 0]
    else:
        a, b = integers(dtype, 1), integers(dtype, 2)
        b[b == 0] = 3
    (y,) = op.reference(a, b)
    expected = counterpart(torch.tensor(a), torch.tensor(b)).numpy()
    assert y.dtype == expected.dtype and y.shape == expected.shape
    np.testing.assert_allclose(y, expected, rtol=1e-6)


@pytest.mark.parametrize("op", [Minimum(), Maximum()], ids=str)
def test_extrema(op):
    nan = np.array([np.nan, 1.0, np.nan], np.float32)
    assert np.isnan(op.reference(nan, nan[::-1].copy())[0][[0, 2]]).all()
    check_vjp(op, normal((3, 4), 1), normal((4,), 2))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_by_zero_are_zero(dtype):
    a, zero = integers(dtype, 1), np.zeros(40, dtype)
    assert not Mod().reference(a, zero)[0].any() and not Fmod().reference(a, zero)[0].any()


def test_power():
    a, b = np.array([2, -2, 3, -1, 2, 0], np.int32), np.array([10, 3, -1, -3, 31, 0], np.int32)
    assert Pow().reference(a, b)[0].tolist() == [1024, -8, 0, -1, -(2**31), 1]
    x, y = uniform((0.1, 5)), uniform((-3, 3))
    np.testing.assert_allclose(Pow().reference(x, y)[0], torch.pow(torch.tensor(x), torch.tensor(y)).numpy())


@pytest.mark.parametrize("dtype", [*INTEGERS, np.bool_])
def test_bits(dtype):
    a, b = (integers(np.int64, seed).astype(dtype) for seed in (1, 2))
    for op, counterpart in ((BitAnd(), np.bitwise_and), (BitOr(), np.bitwise_or), (BitXor(), np.bitwise_xor)):
        (y,) = op.reference(a, b)
        np.testing.assert_array_equal(y, counterpart(a, b))
        assert y.dtype == dtype


def test_shifts_beyond_the_width():
    a, b = np.array([-8, -8, 5, 5, 1], np.int8), np.array([1, 9, 1, 8, 7], np.int8)
    assert ShiftLeft().reference(a, b)[0].tolist() == [-16, 0, 10, 0, -128]
    assert ShiftRight().reference(a, b)[0].tolist() == [-4, -1, 2, 0, 0]
    assert ShiftRight().reference(np.array([200], np.uint8), np.array([9], np.uint8))[0].tolist() == [0]


def test_where():
    condition, a, b = np.array([[True], [False]]), normal((2, 3), 1), normal((3,), 2)
    np.testing.assert_array_equal(Where().reference(condition, a, b)[0], np.where(condition, a, b))
    types = (tensor(DType.BOOL, 2, 1), tensor(DType.I8, 2, 3), tensor(DType.I8, 3))
    assert Where().infer(*types) == (tensor(DType.I8, 2, 3),)
    with pytest.raises(UserError, match="not bool"):
        Where().infer(*types[1:], types[0])
    check_vjp(Where(), condition, a, b)


def test_casts_between_all_types():
    for source in (t for t in DType if t is not DType.F64):
        x = np.array([0, 1, 3, 100], np.int64).astype(source.numpy)
        for target in DType:
            (y,) = Cast(target.value).reference(x)
            assert y.dtype == target.numpy
            np.testing.assert_array_equal(y, x.astype(np.float64).astype(target.numpy))


def test_casts_of_what_does_not_fit():
    x = np.array([np.nan, np.inf, -np.inf, 3e9, -1.9, 300.7], np.float32)
    assert Cast("i32").reference(x)[0].tolist() == [0, 2**31 - 1, -(2**31), 2**31 - 1, -1, 300]
    assert Cast("u8").reference(x)[0].tolist() == [0, 255, 0, 255, 255, 44]
    assert Cast("i64").reference(x)[0].tolist() == [0, 2**63 - 1, -(2**63), 3 * 10**9, -1, 300]
    assert Cast("bool").reference(x)[0].all()
    assert Cast("i8").reference(np.array([200], np.int32))[0].tolist() == [-56]
    with pytest.raises(UserError, match="no element type"):
        Cast("f8").infer(tensor(DType.F32))


def test_integers_are_clipped():
    x = np.array([-128, -3, 0, 100, 127], np.int8)
    assert Clip(-3, 1e9).reference(x)[0].tolist() == [-3, -3, 0, 100, 127]
    with pytest.raises(UserError, match="is not whole"):
        Clip(0.5, 2).infer(tensor(DType.I8, 5))


@pytest.mark.parametrize(
    ("op", "types", "message"),
    [
        (BitAnd(), (tensor(DType.F32), tensor(DType.F32)), "bool and integers"),
        (ShiftLeft(), (tensor(DType.BOOL), tensor(DType.BOOL)), "not on bool"),
        (Less(), (tensor(DType.BOOL), tensor(DType.BOOL)), "not on bool"),
        (Equal(), (tensor(DType.I8), tensor(DType.U8)), "differ in dtype"),
        (Abs(), (tensor(DType.BOOL),), "not on bool"),
    ],
    ids=str,
)
def test_type_errors(op, types, message):
    with pytest.raises(UserError, match=message):
        op.infer(*types)
