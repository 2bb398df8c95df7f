"""Pools and their gradients: against torch, and their vjps against finite differences, over drawn geometries."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.graph.errors import UserError
from edgec.graph.ops.avg_pool2d import AvgPool2d
from edgec.graph.ops.avg_pool2d_grad import AvgPool2dGrad
from edgec.graph.ops.base import Op
from edgec.graph.ops.max_pool2d import MaxPool2d
from edgec.graph.ops.max_pool2d_grad import MaxPool2dGrad
from edgec.graph.ops.max_pool2d_positions import MaxPool2dPositions
from edgec.graph.types import DType, TensorType, tensor
from edgec.tools.testing.gradcheck import check_vjp
from edgec.tools.testing.strategies import normal

torch.set_num_threads(1)


@dataclass(frozen=True)
class Case:
    """One pool: attributes, and the shape of x."""

    attributes: dict
    x: tuple[int, ...]


@st.composite
def pools(draw: st.DrawFn, op: type[Op], max_slack: int = 3) -> Case:
    """Any pool whose windows all touch the input, with uneven pads."""
    kernel, strides = (draw(st.tuples(st.integers(1, 3), st.integers(1, 3))) for _ in range(2))
    dilations = draw(st.tuples(st.integers(1, 2), st.integers(1, 2))) if op is MaxPool2d else (1, 1)
    reach = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
    pads = tuple(draw(st.integers(0, min(2, reach[side % 2]))) for side in range(4))
    size = [
        max(dilations[axis], 1 + reach[axis] - pads[axis] - pads[axis + 2]) + draw(st.integers(0, max_slack))
        for axis in range(2)
    ]
    attributes = {"kernel_size": kernel, "strides": strides, "pads": pads}
    attributes |= {"dilations": dilations} if op is MaxPool2d else {"count_include_pad": draw(st.booleans())}
    return Case(attributes, (draw(st.integers(1, 2)), draw(st.integers(1, 2)), *size))


def spaced(shape: tuple[int, ...]) -> np.ndarray:
    """Distinct values a quarter apart: no finite difference crosses a tie."""
    return np.random.default_rng(0).permutation(int(np.prod(shape))).reshape(shape) / 4.0


@settings(max_examples=60, deadline=None)
@given(pools(MaxPool2d))
def test_max_pool_agrees_with_torch(case: Case) -> None:
    a, x = case.attributes, spaced(case.x)
    top, left, bottom, right = a["pads"]
    tx = torch.tensor(x, requires_grad=True)
    padded = torch.nn.functional.pad(tx, (left, right, top, bottom), value=-torch.inf)
    ty = torch.nn.functional.max_pool2d(padded, a["kernel_size"], a["strides"], dilation=a["dilations"])
    dy = normal(tuple(ty.shape), 3)
    ty.backward(torch.tensor(dy))
    (y,) = MaxPool2d(**a).reference(x)
    taken, positions = MaxPool2dPositions(**a).reference(x)
    (dx,) = MaxPool2dGrad(**a, input_size=case.x[2:]).reference(dy, positions)
    np.testing.assert_array_equal(y, ty.detach().numpy())
    np.testing.assert_array_equal(taken, y)
    np.testing.assert_allclose(dx, tx.grad.numpy(), rtol=1e-12, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(pools(AvgPool2d))
def test_avg_pool_agrees_with_torch(case: Case) -> None:
    """torch pads evenly only; uneven pads are the ratio of two pools over an explicitly padded input."""
    a, x = case.attributes, normal(case.x)
    top, left, bottom, right = a["pads"]
    tx = torch.tensor(x, requires_grad=True)

    def pool(t: torch.Tensor) -> torch.Tensor:
        padded = torch.nn.functional.pad(t, (left, right, top, bottom))
        return torch.nn.functional.avg_pool2d(padded, a["kernel_size"], a["strides"])

    ty = pool(tx) if a["count_include_pad"] else pool(tx) / pool(torch.ones_like(tx))
    dy = normal(tuple(ty.shape), 3)
    ty.backward(torch.tensor(dy))
    (y,) = AvgPool2d(**a).reference(x)
    (dx,) = AvgPool2dGrad(**a, input_size=case.x[2:]).reference(dy)
    np.testing.assert_allclose(y, ty.detach().numpy(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dx, tx.grad.numpy(), rtol=1e-12, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(pools(MaxPool2d, max_slack=2))
def test_max_pool_vjp_agrees_with_finite_differences(case: Case) -> None:
    check_vjp(MaxPool2d(**case.attributes), spaced(case.x))


@settings(max_examples=20, deadline=None)
@given(pools(AvgPool2d, max_slack=2))
def test_avg_pool_vjps_agree_with_finite_differences(case: Case) -> None:
    op = AvgPool2d(**case.attributes)
    x = normal(case.x)
    check_vjp(op, x)
    check_vjp(AvgPool2dGrad(**case.attributes, input_size=case.x[2:]), op.reference(x)[0])


@settings(max_examples=40, deadline=None)
@given(pools(MaxPool2d), pools(AvgPool2d))
def test_inferred_types_are_those_computed(most: Case, mean: Case) -> None:
    for op, x in ((MaxPool2d(**most.attributes), most.x), (AvgPool2d(**mean.attributes), mean.x)):
        (y,) = op.reference(normal(x, dtype=np.float32))
        assert op.infer(tensor(DType.F32, *x)) == (TensorType(DType.F32, y.shape),)
        assert y.dtype == np.float32


def test_ties_go_to_the_first_tap_in_row_major_order() -> None:
    _, positions = MaxPool2dPositions(kernel_size=(2, 2)).reference(np.ones((1, 1, 2, 3)))
    (dx,) = MaxPool2dGrad((2, 2), input_size=(2, 3)).reference(np.array([[[[10.0, 1.0]]]]), positions)
    np.testing.assert_array_equal(dx[0, 0], [[10, 1, 0], [0, 0, 0]])


@settings(max_examples=60, deadline=None)
@given(pools(MaxPool2d), st.integers(0, 99))
def test_ties_and_nans_are_taken_where_torch_takes_them(case: Case, seed: int) -> None:
    a = case.attributes
    top, left, bottom, right = a["pads"]
    half = max(k // 2 for k in a["kernel_size"])
    x = np.random.default_rng(seed).choice([0.0, 1.0, -np.inf, np.nan], case.x, p=[0.3, 0.3, 0.3, 0.1])
    if top == left == bottom == right <= half and top <= min(k // 2 for k in a["kernel_size"]):
        where = {"padding": top}  # torch's own padding, which takes no position
        ty, indices = torch.nn.functional.max_pool2d(
            torch.tensor(x), a["kernel_size"], a["strides"], dilation=a["dilations"], return_indices=True, **where
        )
        y, positions = MaxPool2dPositions(**a).reference(x)
        rows, columns = np.divmod(positions, a["kernel_size"][1])
        oy, ox = np.indices(y.shape[2:])
        rows = oy * a["strides"][0] + rows * a["dilations"][0] - top
        columns = ox * a["strides"][1] + columns * a["dilations"][1] - left
        np.testing.assert_array_equal(rows.astype(int) * case.x[3] + columns, indices.numpy())
        np.testing.assert_array_equal(y, ty.numpy())


def test_positions_in_windows_of_more_than_256_taps_are_wider() -> None:
    op = MaxPool2dPositions((17, 16))
    x = np.zeros((1, 1, 17, 16), np.float32)
    x[0, 0, 16, 15] = 1
    _, positions = op.reference(x)
    assert op.infer(tensor(DType.F32, *x.shape))[1] == tensor(DType.I32, 1, 1, 1, 1) and positions.item() == 271
    (dx,) = MaxPool2dGrad((17, 16), input_size=(17, 16)).reference(np.ones((1, 1, 1, 1), np.float32), positions)
    np.testing.assert_array_equal(dx, x)
    assert MaxPool2dPositions((16, 16)).infer(tensor(DType.F32, 1, 1, 16, 16))[1].dtype is DType.U8


def test_padding_takes_no_gradient_from_a_window_of_minus_infinity() -> None:
    a = {"kernel_size": (2, 2), "pads": (1, 1, 0, 0)}
    x = np.full((1, 1, 1, 1), -np.inf)
    y, positions = MaxPool2dPositions(**a).reference(x)
    (dx,) = MaxPool2dGrad(**a, input_size=(1, 1)).reference(np.ones(y.shape), positions)
    assert dx.item() == 1.0


@pytest.mark.parametrize(
    ("op", "inputs", "message"),
    [
        (MaxPool2d((2, 2)), (tensor(DType.F32, 1, 2, 4),), "rank 4"),
        (MaxPool2d((2, 2)), (tensor(DType.I32, 1, 2, 4, 4),), "floats"),
        (MaxPool2d((5, 1)), (tensor(DType.F32, 1, 2, 4, 4),), "does not fit"),
        (AvgPool2d((1, 2), pads=(0, 2, 0, 0)), (tensor(DType.F32, 1, 2, 4, 4),), "columns outside the input"),
        (MaxPool2d((2, 1), pads=(2, 0, 0, 0), dilations=(3, 1)), (tensor(DType.F32, 1, 1, 1, 1),), "does not fit"),
        (MaxPool2dGrad((2, 2), input_size=(4, 4)), (tensor(DType.F32, 1, 2, 3, 3),) * 2, "positions must be u8"),
        (AvgPool2dGrad((2, 2), input_size=(4, 4)), (tensor(DType.F32, 1, 2, 4, 4),), "dy must be 3x3"),
    ],
)
def test_operands_that_do_not_fit_are_refused(op: Op, inputs: tuple, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        op.infer(*inputs)
    assert caught.value.code == "E0201"
