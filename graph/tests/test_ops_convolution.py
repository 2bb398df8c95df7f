"""conv2d and its two gradients: against torch, and their vjps against finite differences, over drawn geometries."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.graph.errors import UserError
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.conv2d_weight_grad import Conv2dWeightGrad
from edgec.graph.types import DType, tensor
from edgec.tools.testing.gradcheck import check_vjp
from edgec.tools.testing.strategies import normal

torch.set_num_threads(1)


@dataclass(frozen=True)
class Case:
    """One convolution: attributes, and the shapes of x and w."""

    attributes: dict
    x: tuple[int, ...]
    w: tuple[int, ...]


@st.composite
def convolutions(draw: st.DrawFn, max_channels: int = 3, max_slack: int = 4) -> Case:
    """Any convolution that fits: grouped, depthwise, with channel multipliers, strides, dilations, uneven pads."""
    groups = draw(st.integers(1, 3))
    c, o = (groups * draw(st.integers(1, max_channels)) for _ in range(2))
    kernel, strides, dilations = (draw(st.tuples(st.integers(1, 3), st.integers(1, 3))) for _ in range(3))
    pads = draw(st.tuples(*[st.integers(0, 2)] * 4))
    size = [
        max(1, d * (k - 1) + 1 - pads[axis] - pads[axis + 2]) + draw(st.integers(0, max_slack))
        for axis, (k, d) in enumerate(zip(kernel, dilations, strict=True))
    ]
    attributes = {"strides": strides, "pads": pads, "dilations": dilations, "groups": groups}
    return Case(attributes, (draw(st.integers(1, 2)), c, *size), (o, c // groups, *kernel))


def torch_conv(case: Case, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    top, left, bottom, right = case.attributes["pads"]
    padded = torch.nn.functional.pad(x, (left, right, top, bottom))
    a = case.attributes
    return torch.nn.functional.conv2d(padded, w, stride=a["strides"], dilation=a["dilations"], groups=a["groups"])


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_all_three_agree_with_torch(case: Case) -> None:
    x, w = normal(case.x, 1), normal(case.w, 2)
    tx, tw = torch.tensor(x, requires_grad=True), torch.tensor(w, requires_grad=True)
    ty = torch_conv(case, tx, tw)
    dy = normal(tuple(ty.shape), 3)
    ty.backward(torch.tensor(dy))
    (y,) = Conv2d(**case.attributes).reference(x, w)
    (dx,) = Conv2dInputGrad(**case.attributes, input_size=case.x[2:]).reference(dy, w)
    (dw,) = Conv2dWeightGrad(**case.attributes, kernel_size=case.w[2:]).reference(x, dy)
    np.testing.assert_allclose(y, ty.detach().numpy(), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(dx, tx.grad.numpy(), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(dw, tw.grad.numpy(), rtol=1e-11, atol=1e-11)


@settings(max_examples=15, deadline=None)
@given(convolutions(max_channels=2, max_slack=2))
def test_vjps_agree_with_finite_differences(case: Case) -> None:
    a = case.attributes
    x, w = normal(case.x, 1), normal(case.w, 2)
    dy = normal(Conv2d(**a).reference(x, w)[0].shape, 3)
    check_vjp(Conv2d(**a), x, w)
    check_vjp(Conv2dInputGrad(**a, input_size=case.x[2:]), dy, w)
    check_vjp(Conv2dWeightGrad(**a, kernel_size=case.w[2:]), x, dy)


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_inferred_types_and_macs_match_what_is_computed(case: Case) -> None:
    a = case.attributes
    x, w = normal(case.x, dtype=np.float32), normal(case.w, dtype=np.float32)
    (y,) = Conv2d(**a).reference(x, w)
    tx, tw, ty = (tensor(DType.F32, *array.shape) for array in (x, w, y))
    macs = math.prod(case.w) * y.shape[0] * y.shape[2] * y.shape[3]
    for op, inputs, output in (
        (Conv2d(**a), (tx, tw), ty),
        (Conv2dInputGrad(**a, input_size=case.x[2:]), (ty, tw), tx),
        (Conv2dWeightGrad(**a, kernel_size=case.w[2:]), (tx, ty), tw),
    ):
        assert op.infer(*inputs) == (output,)
        assert op.cost(inputs, (output,)).macs == macs
    assert y.dtype == np.float32


F32X = tensor(DType.F32, 1, 4, 5, 5)


@pytest.mark.parametrize(
    ("op", "inputs", "message"),
    [
        (Conv2d(), (F32X,), "operand"),
        (Conv2d(), (F32X, tensor(DType.F32, 3, 4)), "rank 4"),
        (Conv2d(), (F32X, tensor(DType.F64, 3, 4, 1, 1)), "dtype"),
        (Conv2d(), (tensor(DType.I8, 1, 4, 5, 5), tensor(DType.I8, 3, 4, 1, 1)), "floats"),
        (Conv2d(), (F32X, tensor(DType.F32, 3, 3, 1, 1)), "4 channels"),
        (Conv2d(groups=3), (F32X, tensor(DType.F32, 3, 1, 1, 1)), "groups=3 must divide"),
        (Conv2d(groups=4), (F32X, tensor(DType.F32, 6, 1, 1, 1)), "groups=4 must divide"),
        (Conv2d(), (F32X, tensor(DType.F32, 3, 4, 6, 1)), "does not fit"),
        (Conv2d(dilations=(3, 1)), (F32X, tensor(DType.F32, 3, 4, 3, 1)), "does not fit"),
        (Conv2d(strides=(0, 1)), (F32X, tensor(DType.F32, 3, 4, 1, 1)), "strides"),
        (Conv2d(pads=(0, -1, 0, 0)), (F32X, tensor(DType.F32, 3, 4, 1, 1)), "pads"),
        (Conv2dInputGrad(input_size=(6, 5)), (F32X, tensor(DType.F32, 4, 2, 1, 1)), "dy must have"),
        (Conv2dWeightGrad(kernel_size=(3, 3)), (F32X, tensor(DType.F32, 1, 3, 5, 5)), "dy must have"),
        (Conv2dWeightGrad(kernel_size=(3, 3), groups=0), (F32X, tensor(DType.F32, 1, 3, 3, 3)), "groups=0"),
    ],
)
def test_operands_that_do_not_fit_are_refused(op: Conv2d, inputs: tuple, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        op.infer(*inputs)
    assert caught.value.code == "E0201"
