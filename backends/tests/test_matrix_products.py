"""Which kernels a library may stand in for, and that their record says all of what they do: it is followed by numpy."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.backends.base import Group
from edgec.backends.targets import find_target
from edgec.backends.tvm.gpu import tensor_cores
from edgec.backends.tvm.gpu.matrix_products import matrix_product
from edgec.backends.tvm.gpu.products import lower_device_product
from edgec.backends.tvm.gpu.tensor_cores import TILES, lower_tensor_cores
from edgec.graph.ir import Graph, Role, Value
from edgec.graph.ops.base import Op
from edgec.graph.ops.clip import Clip
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.conv2d_weight_grad import Conv2dWeightGrad
from edgec.graph.ops.matmul import MatMul
from edgec.graph.types import DType, tensor
from edgec.runtime.abi import Factor, Product, Storage

TF32 = find_target("cuda:sm_90+tf32")
KERNEL = {"kernel_size": (1, 1)}
SIZE = {"input_size": (6, 8)}
# An op, its operands, the parts of its kernel, and the products that take their place: None where there are none.
CASES = {
    "matrices": (MatMul(), (40, 24), (24, 33), 1, 1),
    "left turned": (MatMul(transpose_a=True), (24, 40), (24, 33), 1, 1),
    "both turned": (MatMul(True, True), (3, 24, 40), (3, 33, 24), 1, 3),
    "one for all": (MatMul(), (2, 3, 40, 24), (24, 33), 1, 6),
    "broadcast": (MatMul(), (2, 1, 40, 24), (1, 3, 24, 33), 1, None),
    "in parts": (MatMul(), (40, 96), (96, 33), 4, 4),
    "turned in parts": (MatMul(True, True), (96, 40), (33, 96), 3, 3),
    "in unequal parts": (MatMul(), (40, 70), (70, 33), 3, 2),
    "batch in parts": (MatMul(), (2, 40, 96), (2, 96, 33), 2, 2),
    "pointwise": (Conv2d(), (2, 24, 6, 8), (32, 24, 1, 1), 1, 2),
    "pointwise in parts": (Conv2d(), (1, 96, 6, 8), (32, 96, 1, 1), 3, 3),
    "images in parts": (Conv2d(), (2, 96, 6, 8), (32, 96, 1, 1), 3, 2),
    "3x3": (Conv2d(pads=(1, 1, 1, 1)), (2, 24, 6, 8), (32, 24, 3, 3), 1, None),
    "strided": (Conv2d(strides=(2, 2)), (2, 24, 6, 8), (32, 24, 1, 1), 1, None),
    "padded": (Conv2d(pads=(1, 1, 1, 1)), (2, 24, 6, 8), (32, 24, 1, 1), 1, None),
    "groups": (Conv2d(groups=2), (2, 48, 6, 8), (32, 24, 1, 1), 1, None),
    "input gradient": (Conv2dInputGrad(**SIZE), (2, 32, 6, 8), (32, 24, 1, 1), 1, 2),
    "input gradient in parts": (Conv2dInputGrad(**SIZE), (1, 96, 6, 8), (96, 24, 1, 1), 4, 4),
    "weight gradient": (Conv2dWeightGrad(**KERNEL), (1, 24, 6, 8), (1, 32, 6, 8), 1, 1),
    "weight gradient in parts": (Conv2dWeightGrad(**KERNEL), (1, 24, 12, 8), (1, 32, 12, 8), 3, 3),
    "weight gradient of images": (Conv2dWeightGrad(**KERNEL), (2, 24, 12, 8), (2, 32, 12, 8), 3, 2),
    "too many images": (Conv2dWeightGrad(**KERNEL), (4, 24, 12, 8), (4, 32, 12, 8), 3, None),
    "3x3 weight gradient": (
        Conv2dWeightGrad(pads=(1, 1, 1, 1), kernel_size=(3, 3)),
        (1, 24, 6, 8),
        (1, 32, 6, 8),
        1,
        None,
    ),
}


def group_of(op: Op, *shapes: tuple[int, ...], clipped: bool = False) -> Group:
    graph = Graph("case")
    values = [graph.add_leaf(Role.INPUT, f"v{i}", tensor(DType.F32, *shape)) for i, shape in enumerate(shapes)]
    result = graph.emit1(op, *values)
    if clipped:
        result = graph.emit1(Clip(low=0.0, high=6.0), result)
    return Group(tuple(graph.nodes), tuple(values), (result,))


def row_major(group: Group) -> dict[Value, Storage]:
    return {value: Storage.row_major(value.type.shape) for value in (*group.inputs, *group.outputs)}


def matrices(flat: np.ndarray, factor: Factor, batch: int, rows: int, columns: int) -> np.ndarray:
    """[batch, rows, columns] of what lies behind an argument; an index outside is an error."""
    b, i, j = np.ogrid[:batch, :rows, :columns]
    step, one = (1, factor.leading) if factor.transposed else (factor.leading, 1)
    return flat[b * factor.stride + i * step + j * one]


def followed(product: Product, arguments: list[np.ndarray], size: int) -> np.ndarray:
    left = matrices(arguments[product.left.argument], product.left, product.batch, product.rows, product.depth)
    right = matrices(arguments[product.right.argument], product.right, product.batch, product.depth, product.columns)
    result = np.zeros(size)
    result[: product.batch * product.rows * product.columns] = (left @ right).ravel()
    return result


@pytest.mark.parametrize("name", CASES)
def test_the_record_is_what_the_kernel_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op, a, b, parts, products = CASES[name]
    monkeypatch.setattr(tensor_cores, "choose_tile", lambda *_: (TILES[6], parts))
    group = group_of(op, a, b)
    lowering = lower_tensor_cores(group, row_major(group), {}, TF32)
    assert lowering is not None and len(lowering.calls) == 1 + (parts > 1)
    product = matrix_product(lowering.calls[0].spec)
    if products is None:
        assert product is None
        return
    assert product is not None and product.batch == products and product.tf32
    random = np.random.default_rng(0)
    operands = [random.standard_normal(shape) for shape in (a, b)]
    (expected,) = op.reference(*operands)
    results = lowering.calls[0].spec.arguments[product.result].elements
    assert results == parts * expected.size
    got = followed(product, [operand.ravel() for operand in operands], results)
    np.testing.assert_allclose(got.reshape(parts, *expected.shape).sum(0), expected, rtol=1e-9, atol=1e-9)


def test_kernels_without_tensor_cores_are_exact() -> None:
    group = group_of(MatMul(), (64, 32), (32, 64))
    lowering = lower_device_product(group, row_major(group), {})
    assert lowering is not None
    product = matrix_product(lowering.calls[0].spec)
    assert product == Product(1, 64, 64, 32, Factor(0, 32), Factor(1, 64), 2, tf32=False)


def test_what_follows_a_product_is_not_the_librarys() -> None:
    group = group_of(MatMul(), (64, 32), (32, 64), clipped=True)
    lowering = lower_tensor_cores(group, row_major(group), {}, TF32)
    assert lowering is not None
    assert all(matrix_product(call.spec) is None for call in lowering.calls)


def test_other_layouts_are_not_the_librarys() -> None:
    group = group_of(Conv2d(), (2, 24, 6, 8), (32, 24, 1, 1))
    storage = row_major(group) | {group.inputs[0]: Storage((2, 24, 6, 8), (0, 2, 1, 3))}
    lowering = lower_tensor_cores(group, storage, {}, TF32)
    assert lowering is not None
    assert matrix_product(lowering.calls[0].spec) is None
