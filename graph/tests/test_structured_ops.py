"""Gathers, scatters, rankings, cumulative ops, resampling and normalisation over rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgec.graph.errors import UserError
from edgec.graph.ops.arg_max import ArgMax
from edgec.graph.ops.arg_min import ArgMin
from edgec.graph.ops.base import Op
from edgec.graph.ops.cum_prod import CumProd
from edgec.graph.ops.cum_sum import CumSum
from edgec.graph.ops.gather import Gather
from edgec.graph.ops.gather_elements import GatherElements
from edgec.graph.ops.gather_nd import GatherNd
from edgec.graph.ops.layer_norm import LayerNorm
from edgec.graph.ops.non_max_suppression import NonMaxSuppression
from edgec.graph.ops.reduce_min import ReduceMin
from edgec.graph.ops.reduce_prod import ReduceProd
from edgec.graph.ops.resample import Resample, transposed
from edgec.graph.ops.rms_norm import RmsNorm
from edgec.graph.ops.scatter_elements import ScatterElements
from edgec.graph.ops.scatter_nd import ScatterNd
from edgec.graph.ops.top_k import TopK
from edgec.graph.types import DType, tensor
from edgec.tools.testing.gradcheck import check_vjp, vjp_gradients
from edgec.tools.testing.strategies import normal

torch.set_num_threads(1)

INDICES = np.array([[2, 0, -1], [1, 1, -4]])
F32, I64 = DType.F32, DType.I64


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_gather_is_numpys_take(axis: int):
    x = normal((4, 5, 6))
    np.testing.assert_array_equal(Gather(axis).reference(x, INDICES)[0], np.take(x, INDICES, axis))
    check_vjp(Gather(axis), normal((4, 4, 4)), INDICES)


@pytest.mark.parametrize("axis", [0, 2])
def test_no_gradient_reaches_the_slice_of_padding(axis: int):
    x, indices = normal((4, 4, 4)), np.array([[2, 0, 3], [1, 1, 0]])
    (y,) = Gather(axis, 1).reference(x, indices)
    np.testing.assert_array_equal(y, np.take(x, indices, axis))
    dy = normal(y.shape)
    whole, part = (vjp_gradients(Gather(axis, padding), (x, indices), (dy,))[0] for padding in (-1, 1))
    silent = np.arange(4) == 1
    np.testing.assert_array_equal(np.compress(~silent, part, axis), np.compress(~silent, whole, axis))
    assert not np.compress(silent, part, axis).any() and np.compress(silent, whole, axis).any()


def test_what_lies_outside_is_moved_to_the_nearest_end():
    x = normal((4, 3))
    (y,) = Gather(0).reference(x, np.array([99, -99]))
    np.testing.assert_array_equal(y, x[[3, 0]])
    np.testing.assert_array_equal(GatherNd().reference(x, np.array([[99, -99]]))[0], [x[3, 0]])
    (y,) = ScatterNd().reference(x, np.array([[99]]), np.zeros((1, 3), np.float32))
    assert not y[3].any()


@pytest.mark.parametrize("axis", [0, 1])
def test_gather_elements_is_torchs_gather(axis: int):
    x, indices = normal((3, 4)), np.array([[2, 0, 1], [0, 0, 2]])
    expected = torch.gather(torch.tensor(x), axis, torch.tensor(indices)).numpy()
    np.testing.assert_array_equal(GatherElements(axis).reference(x, indices)[0], expected)
    check_vjp(GatherElements(axis), x, indices)


def test_gather_nd_reads_behind_its_batch():
    x, indices = normal((2, 3, 4, 5)), np.array([[[1, -1]], [[0, 2]]])
    (y,) = GatherNd(1).reference(x, indices)
    np.testing.assert_array_equal(y, np.stack([x[0, 1, 3], x[1, 0, 2]])[:, None])


@pytest.mark.parametrize(("reduction", "torchs"), [("add", "sum"), ("mul", "prod"), ("min", "amin"), ("max", "amax")])
def test_scatter_elements_is_torchs(reduction: str, torchs: str):
    x, updates, indices = normal((3, 4)), normal((2, 3), 1), np.array([[2, 0, 1], [0, 0, 2]])
    expected = torch.tensor(x).scatter_reduce(0, torch.tensor(indices), torch.tensor(updates), torchs).numpy()
    got = ScatterElements(0, reduction).reference(x, indices, updates)[0]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_the_last_of_several_updates_wins():
    (y,) = ScatterNd().reference(np.zeros(3, np.float32), np.array([[1], [1]]), np.array([5, 7], np.float32))
    np.testing.assert_array_equal(y, [0, 7, 0])


def test_scatter_nd_adds_slices():
    x, updates = normal((4, 3)), normal((3, 3), 1)
    (y,) = ScatterNd("add").reference(x, np.array([[1], [0], [1]]), updates)
    np.testing.assert_allclose(y, x + np.stack([updates[1], updates[0] + updates[2], 0 * x[0], 0 * x[0]]), rtol=1e-6)


@pytest.mark.parametrize("op", [ArgMax, ArgMin])
def test_positions_of_equal_elements(op: type[Op]):
    x = np.array([[1, 1, 1]], np.float32)
    assert op(1).reference(x)[0] == 0
    assert op(1, last=True).reference(x)[0] == 2
    assert op(1, keepdims=True).reference(x)[0].shape == (1, 1)


@pytest.mark.parametrize("largest", [True, False])
def test_top_k_is_torchs(largest: bool):
    x = normal((5, 9))
    values, positions = TopK(1, 4, largest).reference(x)
    expected = torch.topk(torch.tensor(x), 4, 1, largest)
    np.testing.assert_array_equal(values, expected.values.numpy())
    np.testing.assert_array_equal(positions, expected.indices.numpy())


@pytest.mark.parametrize("largest", [True, False])
def test_top_k_takes_the_first_of_equal_elements_first(largest: bool):
    assert TopK(0, 3, largest).reference(np.ones(5, np.float32))[1].tolist() == [0, 1, 2]


def test_the_gradient_of_top_k_goes_back_to_the_positions():
    x, dy = normal((3, 5)).astype(np.float64), normal((3, 2), 1).astype(np.float64)
    _, positions = TopK(1, 2).reference(x)
    (dx,) = vjp_gradients(TopK(1, 2), [x], [dy, None])
    expected = np.zeros_like(x)
    np.put_along_axis(expected, positions, dy, 1)
    np.testing.assert_array_equal(dx, expected)


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_cumulative_sums_and_products(exclusive: bool, reverse: bool):
    x = np.array([2, 3, 4], np.float32)
    sums = {(0, 0): [2, 5, 9], (0, 1): [9, 7, 4], (1, 0): [0, 2, 5], (1, 1): [7, 4, 0]}[exclusive, reverse]
    products = {(0, 0): [2, 6, 24], (0, 1): [24, 12, 4], (1, 0): [1, 2, 6], (1, 1): [12, 4, 1]}[exclusive, reverse]
    np.testing.assert_array_equal(CumSum(0, exclusive, reverse).reference(x)[0], sums)
    np.testing.assert_array_equal(CumProd(0, exclusive, reverse).reference(x)[0], products)
    check_vjp(CumSum(1, exclusive, reverse), normal((2, 4, 3)))


def test_minima_and_products():
    x = normal((3, 4, 5))
    np.testing.assert_array_equal(ReduceMin((0, 2)).reference(x)[0], x.min((0, 2)))
    np.testing.assert_allclose(ReduceProd((1,), True).reference(x)[0], x.prod(1, keepdims=True), rtol=1e-6)
    check_vjp(ReduceMin((0, 2)), x)
    with pytest.raises(UserError, match="one of no elements"):
        ReduceMin((0,)).infer(tensor(F32, 0, 3))


def test_resampling_is_a_product_with_a_matrix():
    x, indices, weights = normal((4, 6)), np.array([[0, 5], [2, 2], [1, 3]], np.int32), normal((3, 2), 1)
    matrix = np.zeros((3, 6), np.float32)
    for i, row in enumerate(indices):
        for tap, j in enumerate(row):
            matrix[i, j] += weights[i, tap]
    np.testing.assert_allclose(Resample(1).reference(x, indices, weights)[0], x @ matrix.T, rtol=1e-5, atol=1e-6)
    table, factors = transposed(indices, weights, 6)
    dy = normal((4, 3), 2)
    back = Resample(1).reference(dy, table, factors)[0]
    np.testing.assert_allclose(back, dy @ matrix, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_layer_norm_is_torchs(axis: int):
    x = normal((2, 3, 4)) + 5
    gamma, beta = normal(x.shape[axis:], 1), normal(x.shape[axis:], 2)
    expected = torch.nn.functional.layer_norm(
        *(torch.tensor(a) for a in (x,)), gamma.shape, *map(torch.tensor, (gamma, beta))
    )
    y, mean, inv_std = LayerNorm(axis).reference(x, gamma, beta)
    np.testing.assert_allclose(y, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert mean.shape == inv_std.shape == x.shape[:axis]


@pytest.mark.parametrize("parts", [0, 1, 2])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_gradient_of_layer_norm(axis: int, parts: int):
    x = normal((2, 3, 4))
    dy = normal(x.shape, 9).astype(np.float64)
    factors = [normal(x.shape[axis:], seed) for seed in range(1, parts + 1)]
    check_vjp(LayerNorm(axis, 1e-2), x, *factors, output_gradients=[dy, None, None])


@pytest.mark.parametrize("parts", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rms_norm_and_its_gradient(axis: int, parts: int):
    x = normal((2, 3, 4))
    factors = [normal(x.shape[axis:], 1)] * parts
    axes = tuple(range(axis, 3))
    expected = x / np.sqrt((x * x).mean(axes, keepdims=True) + 1e-2) * (factors[0] if parts else 1)
    np.testing.assert_allclose(RmsNorm(axis, 1e-2).reference(x, *factors)[0], expected, rtol=1e-5, atol=1e-6)
    dy = normal(x.shape, 9).astype(np.float64)
    check_vjp(RmsNorm(axis, 1e-2), x, *factors, output_gradients=[dy, None])


def kept(boxes: list, scores: list, limit: int, iou: float, lowest: float) -> list[int]:
    operands = [np.array([boxes], np.float32), np.array([[scores]], np.float32), np.float32(iou), np.float32(lowest)]
    (picked,) = NonMaxSuppression(limit).reference(*operands)
    return picked.reshape(-1).tolist()


def test_suppression_keeps_the_best_of_boxes_that_overlap():
    """Two unit squares shifted by half a side share a third of their union."""
    boxes = [[0, 0, 1, 1], [0.5, 1, 1.5, 0], [5, 5, 6, 6], [0, 0, 1, 1]]
    assert kept(boxes, [0.5, 0.9, 0.1, 0.5], 4, 0.3, 0.0) == [1, 2, -1, -1]
    assert kept(boxes, [0.5, 0.9, 0.1, 0.5], 4, 0.4, 0.0) == [1, 0, 2, -1]
    assert kept(boxes, [0.5, 0.9, 0.1, 0.5], 4, 1.0, 0.1) == [1, 0, 3, -1]
    assert kept(boxes, [0.5, 0.9, 0.1, 0.5], 2, 1.0, 0.1) == [1, 0]
    assert kept(boxes, [np.nan, -np.inf, 0.1, 0.5], 3, 0.0, -np.inf) == [3, 2, -1]


def test_what_has_no_area_suppresses_nothing():
    assert kept([[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 1, 1]], [3, 2, 1], 3, 0.0, 0.0) == [0, 1, 2]


THRESHOLDS = (tensor(F32), tensor(F32))
REFUSED = [
    (Gather(0), (tensor(F32, 3), tensor(F32, 2)), "indices are i32 or i64"),
    (Gather(0), (tensor(F32, 0, 2), tensor(I64, 2)), "no elements"),
    (GatherElements(0), (tensor(F32, 3, 4), tensor(I64, 2, 5)), "do not lie within x"),
    (GatherNd(1), (tensor(F32, 3, 4), tensor(I64, 2, 1)), "do not share 1 batch axes"),
    (GatherNd(), (tensor(F32, 3, 4), tensor(I64, 2, 3)), "3 coordinates for the 2 axes"),
    (ScatterElements(0, "mean"), (tensor(F32, 3), tensor(I64, 2), tensor(F32, 2)), "is none of"),
    (ScatterElements(0), (tensor(F32, 3), tensor(I64, 2), tensor(F32, 1)), "one update for each index"),
    (ScatterNd(), (tensor(F32, 3, 4), tensor(I64, 2, 1), tensor(F32, 2)), "updates must have the shape"),
    (ArgMax(0), (tensor(F32, 0, 2),), "no elements"),
    (TopK(0, 4), (tensor(F32, 3),), "k=4 elements of 3"),
    (NonMaxSuppression(2), (tensor(F32, 1, 3, 4), tensor(F32, 1, 1, 2), *THRESHOLDS), "of different numbers"),
    (NonMaxSuppression(2), (tensor(F32, 1, 3, 5), tensor(F32, 1, 1, 3), *THRESHOLDS), r"boxes are \[N,B,4\]"),
    (NonMaxSuppression(4), (tensor(F32, 1, 3, 4), tensor(F32, 1, 1, 3), *THRESHOLDS), "limit=4 of 3 boxes"),
    (NonMaxSuppression(1), (tensor(F32, 1, 3, 4), tensor(F32, 1, 1, 3), tensor(F32, 1), tensor(F32)), "scalars"),
    (CumSum(1), (tensor(F32, 3),), "axis 1 is out of range"),
    (Resample(0), (tensor(F32, 3), tensor(I64, 2, 2), tensor(F32, 2, 1)), "one shape"),
    (LayerNorm(1), (tensor(F32, 3, 4), tensor(F32, 3)), "factors must have the shape"),
    (RmsNorm(1, -1.0), (tensor(F32, 3, 4),), "must not be negative"),
]


@pytest.mark.parametrize(("op", "types", "reason"), REFUSED, ids=lambda item: item.name if isinstance(item, Op) else "")
def test_operands_that_do_not_fit_are_refused(op: Op, types: tuple, reason: str):
    with pytest.raises(UserError, match=reason):
        op.infer(*types)
