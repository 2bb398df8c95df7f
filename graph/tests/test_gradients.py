"""Gradients of powers, remainders, products, casts, gathers and scatters: finite differences and torch, any shape.

And the points at which a derivative does not exist: every op does there as torch does.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgec.graph.ops import (
    Abs,
    Acos,
    Asin,
    Cast,
    Clip,
    CumProd,
    Div,
    Fmod,
    GatherElements,
    GatherNd,
    Log,
    Maximum,
    MaxPool2d,
    Minimum,
    Mod,
    Mul,
    Pow,
    ReduceProd,
    Relu,
    Resample,
    ScatterElements,
    ScatterNd,
    Sqrt,
    TopK,
    Where,
)
from edgec.graph.ops.base import Op
from edgec.tools.testing.against_torch import check_against_torch
from edgec.tools.testing.gradcheck import check_vjp, vjp_gradients
from edgec.tools.testing.strategies import broadcastable_pairs, normal, shape_and_axes, shapes

torch.set_num_threads(1)

SEEDS = st.integers(0, 99)


def with_zeros(x: np.ndarray, seed: int) -> np.ndarray:
    """`x` with about every third element 0."""
    return np.where(np.random.default_rng(seed).random(x.shape) < 1 / 3, 0.0, x)


@given(broadcastable_pairs(), SEEDS)
def test_powers(pair, seed):
    a, b = (normal(shape, seed + i) for i, shape in enumerate(pair))
    check_vjp(Pow(), np.abs(a) + 0.2, b)
    check_against_torch(Pow(), torch.pow, np.abs(a) + 0.2, b)


@given(broadcastable_pairs(), SEEDS)
def test_remainders(pair, seed):
    """Quotients away from whole numbers, where remainders jump."""
    rng = np.random.default_rng(seed)
    b = rng.uniform(0.5, 2, pair[1]) * rng.choice([-1, 1], pair[1])
    whole = rng.integers(-3, 4, np.broadcast_shapes(*pair)) + rng.uniform(0.1, 0.9, np.broadcast_shapes(*pair))
    a = whole * b
    check_vjp(Mod(), a, b)
    check_vjp(Fmod(), a, b)
    check_against_torch(Mod(), torch.remainder, a, b)
    check_against_torch(Fmod(), torch.fmod, a, b)


@given(shape_and_axes(), st.booleans(), SEEDS)
def test_products(drawn, keepdims, seed):
    shape, axes = drawn
    x = with_zeros(normal(shape, seed), seed)
    check_vjp(ReduceProd(axes, keepdims), x)

    def counterpart(t: torch.Tensor) -> torch.Tensor:
        for axis in sorted(axes, reverse=True):
            t = t.prod(axis, keepdim=keepdims)
        return t * 1.0

    check_against_torch(ReduceProd(axes, keepdims), counterpart, x)


@given(shapes(1, 3), st.data(), st.booleans(), st.booleans(), SEEDS)
def test_cumulative_products(shape, data, exclusive, reverse, seed):
    axis = data.draw(st.integers(0, len(shape) - 1))
    x = with_zeros(normal(shape, seed), seed)
    op = CumProd(axis, exclusive, reverse)
    check_vjp(op, x)

    def counterpart(t: torch.Tensor) -> torch.Tensor:
        t = t.flip(axis) if reverse else t
        y = t.cumprod(axis)
        if exclusive:
            y = torch.cat([torch.ones_like(y.narrow(axis, 0, 1)), y.narrow(axis, 0, shape[axis] - 1)], axis)
        return y.flip(axis) if reverse else y

    check_against_torch(op, counterpart, x)


@st.composite
def nd_coordinates(draw, batch_dims: int = 0):
    """A shape, and coordinates into its leading axes behind `batch_dims`: many are equal, some are negative."""
    shape = draw(shapes(batch_dims + 1, batch_dims + 3, 1, 4))
    depth = draw(st.integers(1, len(shape) - batch_dims))
    outer = draw(shapes(1, 2, 1, 4))
    rng = np.random.default_rng(draw(SEEDS))
    places = (*shape[:batch_dims], *outer)
    columns = [rng.integers(-n, n, places) for n in shape[batch_dims : batch_dims + depth]]
    return shape, np.stack(columns, -1).astype(np.int64)


@given(st.integers(0, 2).flatmap(lambda n: st.tuples(st.just(n), nd_coordinates(n))))
def test_picked_slices(drawn):
    batch_dims, (shape, indices) = drawn
    check_vjp(GatherNd(batch_dims), normal(shape), indices)


@given(nd_coordinates(), st.sampled_from(["none", "add", "mul", "min", "max"]), SEEDS)
def test_placed_slices(drawn, reduction, seed):
    shape, indices = drawn
    updates = normal((*indices.shape[:-1], *shape[indices.shape[-1] :]), seed + 1)
    x = normal(shape, seed)
    if reduction == "mul":
        x, updates = with_zeros(x, seed), with_zeros(updates, seed + 1)
    check_vjp(ScatterNd(reduction), x, indices, updates)


TORCH_REDUCTIONS = {"add": "sum", "mul": "prod", "min": "amin", "max": "amax"}


@given(shapes(1, 3), st.data(), st.sampled_from(["none", *TORCH_REDUCTIONS]), SEEDS)
def test_placed_elements(shape, data, reduction, seed):
    axis = data.draw(st.integers(0, len(shape) - 1))
    rng = np.random.default_rng(seed)
    own = tuple(int(rng.integers(1, n + 1)) if i != axis else int(rng.integers(1, 5)) for i, n in enumerate(shape))
    indices = rng.integers(0, shape[axis], own)
    x, updates = normal(shape, seed), normal(own, seed + 1)
    if reduction == "mul":
        x, updates = with_zeros(x, seed), with_zeros(updates, seed + 1)
    op = ScatterElements(axis, reduction)
    check_vjp(op, x, indices, updates)
    if reduction == "none":  # which of several updates torch takes, and sends the gradient to, is left open
        return
    tensors = [torch.tensor(x, requires_grad=True), torch.tensor(updates, requires_grad=True)]
    y = torch.scatter_reduce(tensors[0], axis, torch.tensor(indices), tensors[1], TORCH_REDUCTIONS[reduction])
    dy = normal(shape, seed + 2)
    y.backward(torch.tensor(dy))
    dx, _, dupdates = vjp_gradients(op, [x, indices, updates], [dy])
    np.testing.assert_allclose(dx, tensors[0].grad.numpy(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dupdates, tensors[1].grad.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reduction", ["min", "max"])
def test_equal_extrema_share_the_gradient_of_a_scatter(reduction: str):
    x, updates = np.array([1.0, 2.0]), np.array([1.0, 1.0])
    indices = np.array([0, 0])
    dx, _, dupdates = vjp_gradients(ScatterElements(0, reduction), [x, indices, updates], [np.array([3.0, 5.0])])
    np.testing.assert_allclose(dx, [1.0, 5.0])
    np.testing.assert_allclose(dupdates, [1.0, 1.0])


@given(shapes(1, 3), st.data(), SEEDS)
def test_resampling_by_tables_of_the_run(shape, data, seed):
    axis = data.draw(st.integers(0, len(shape) - 1))
    rng = np.random.default_rng(seed)
    indices = rng.integers(-shape[axis], shape[axis], (3, 2))
    check_vjp(Resample(axis), normal(shape, seed), indices, normal((3, 2), seed + 1))


@pytest.mark.parametrize("op", [GatherElements(1), TopK(1, 2)], ids=str)
def test_elements_picked_more_than_once(op: Op):
    x = normal((3, 4))
    operands = [x, np.array([[0, 0, 3], [1, 1, 1], [2, -1, 0]])] if isinstance(op, GatherElements) else [x]
    cotangents = [np.ones_like(y) if y.dtype.kind == "f" else None for y in op.reference(*operands)]
    check_vjp(op, *operands, output_gradients=cotangents)


@pytest.mark.parametrize("wide", [np.float32, np.float64])
def test_casts_between_floats_carry_gradients_and_others_none(wide: type):
    x, dy = normal((3, 2), 0, wide), normal((3, 2), 1)
    (dx,) = vjp_gradients(Cast("f16"), [x], [dy.astype(np.float16)])
    assert dx.dtype == wide
    np.testing.assert_array_equal(dx, dy.astype(np.float16).astype(wide))
    assert vjp_gradients(Cast("i32"), [x], [np.zeros((3, 2), np.int32)]) == [None]


# -- where a derivative does not exist ------------------------------------------------------------------------------

X = np.array([-1.0, -0.0, 0.0, 1.0, 2.0])
SAME = np.array([-1.0, 0.0, 0.5, 1.0, 2.0])
EDGES = {
    "relu": (Relu(), torch.relu, (X,)),
    "abs": (Abs(), torch.abs, (X,)),
    "square root": (Sqrt(), torch.sqrt, (np.abs(X),)),
    "logarithm": (Log(), torch.log, (np.abs(X),)),
    "arc sine": (Asin(), torch.asin, (X[:4],)),
    "arc cosine": (Acos(), torch.acos, (X[:4],)),
    "larger of equals": (Maximum(), torch.maximum, (X, SAME)),
    "smaller of equals": (Minimum(), torch.minimum, (X, SAME)),
    "relu6": (Clip(0.0, 6.0), torch.nn.functional.relu6, (np.array([-1.0, 0.0, 3.0, 6.0, 7.0]),)),
    "base 0": (Pow(), torch.pow, (np.zeros(5), np.array([0.0, 0.5, 1.0, 2.0, 3.0]))),
    "negative base": (Pow(), torch.pow, (np.full(3, -2.0), np.array([2.0, 3.0, 0.0]))),
    "exponent 0": (Pow(), torch.pow, (np.array([0.0, 2.0, 1e-3]), np.zeros(3))),
    "zero times infinity": (Mul(), torch.mul, (np.array([0.0, 1.0]), np.array([np.inf, np.inf]))),
    "by 0": (Div(), torch.div, (np.array([0.0, 1.0]), np.array([0.0, 0.0]))),
}


@pytest.mark.parametrize("name", EDGES)
def test_edges_are_as_in_torch(name: str):
    op, counterpart, operands = EDGES[name]
    tensors = [torch.tensor(x, requires_grad=True) for x in operands]
    y = counterpart(*tensors)
    dy = np.linspace(0.5, 1.5, y.numel()).reshape(y.shape)
    y.backward(torch.tensor(dy))
    for gradient, tensor in zip(vjp_gradients(op, list(operands), [dy]), tensors, strict=True):
        np.testing.assert_array_equal(gradient, tensor.grad.numpy())


def test_a_choice_sends_nothing_into_the_branch_that_was_not_taken():
    """Whatever stands there, also NaN: 0 times it would be NaN."""
    a, b = np.array([1.0, np.nan]), np.array([np.inf, 2.0])
    _, da, db = vjp_gradients(Where(), [np.array([True, False]), a, b], [np.array([3.0, 5.0])])
    np.testing.assert_array_equal(da, [3.0, 0.0])
    np.testing.assert_array_equal(db, [0.0, 5.0])


def test_equal_maxima_of_a_pool_are_as_in_torch():
    x = np.zeros((1, 1, 4, 4))
    tensor = torch.tensor(x, requires_grad=True)
    y = torch.nn.functional.max_pool2d(tensor, 3, 1, padding=1)
    y.backward(torch.ones_like(y))
    (dx,) = vjp_gradients(MaxPool2d((3, 3), pads=(1, 1, 1, 1)), [x], [np.ones((1, 1, 4, 4))])
    np.testing.assert_array_equal(dx, tensor.grad.numpy())
