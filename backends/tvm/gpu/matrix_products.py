"""Which kernels of devices are a matrix product and nothing else, so that a library could do it instead.

These are tiled products without anything behind them: of matrices, and of pointwise convolutions, whose maps are
matrices of channels by positions. Nothing here loads tvm.
"""

from __future__ import annotations

import math
from dataclasses import replace

from edgec.backends.base import KernelSpec
from edgec.backends.tvm.computation import Memory
from edgec.backends.tvm.gpu.products import TiledSpec
from edgec.backends.tvm.gpu.tensor_cores import TensorCoreSpec
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.conv2d_weight_grad import Conv2dWeightGrad
from edgec.graph.ops.convolution import Convolution
from edgec.graph.ops.matmul import MatMul
from edgec.runtime.abi import Factor, Product


def matrix_product(spec: KernelSpec) -> Product | None:
    """What `spec` computes; None where it is no product, or more than one.

    A kernel that leaves sums over parts of the depth may leave those over fewer and other parts, and zeros: what adds
    them does not mind.
    """
    if not isinstance(spec, TiledSpec):
        return None
    computation = spec.computation
    operands = [operand for operand in computation.anchor.operands if isinstance(operand, Memory)]
    memories = [*operands, *(store.memory for store in computation.stores)]
    alone = len(computation.steps) == 1 and len(memories) == len(computation.arguments) == 3
    if not alone or not all(memory.storage.is_row_major for memory in memories):
        return None
    product = _uncut(spec, *operands)
    if product is None or product.batch > 1 or spec.parts == 1:
        return product
    return _cut(product, spec.parts)


def _uncut(spec: TiledSpec, a: Memory, b: Memory) -> Product | None:
    """The product over all of the depth, but for gradients of weights: one for each image."""
    op, view = spec.computation.anchor.op, spec.view
    if isinstance(op, Convolution) and not _is_pointwise(op, b):
        return None
    match op:
        case MatMul():
            batch, columns, depth = view.batch, view.columns, view.depth
            if any(math.prod(operand.type.shape[:-2]) not in (1, batch) for operand in (a, b)):
                return None  # broadcast in a way that has no stride
            left, right = _matrix(a, op.transpose_a), _matrix(b, op.transpose_b)
        case Conv2d() | Conv2dInputGrad():
            batch, columns, depth = a.type.shape[0], math.prod(a.type.shape[2:]), view.depth
            left, right = Factor(b.argument, b.type.shape[1], 0, isinstance(op, Conv2dInputGrad)), _map(a)
        case Conv2dWeightGrad():
            batch, columns, depth = a.type.shape[0], view.columns, math.prod(a.type.shape[2:])
            left, right = _map(b), replace(_map(a), transposed=True)
            if batch > spec.parts:
                return None  # the sum over images is part of it
        case _:
            return None
    result, tf32 = spec.computation.stores[0].memory.argument, isinstance(spec, TensorCoreSpec)
    return Product(batch, view.rows, columns, depth, left, right, result, tf32)


def _is_pointwise(op: Convolution, b: Memory) -> bool:
    taps = op.kernel_size if isinstance(op, Conv2dWeightGrad) else b.type.shape[2:]
    return op.groups == 1 and not any(op.pads) and (*taps, *op.strides) == (1, 1, 1, 1)


def _matrix(operand: Memory, transposed: bool) -> Factor:
    """The last two axes; those before them are the batch."""
    *batch, rows, columns = operand.type.shape
    return Factor(operand.argument, columns, rows * columns if math.prod(batch) > 1 else 0, transposed)


def _map(operand: Memory) -> Factor:
    """Channels by positions."""
    _, channels, *size = operand.type.shape
    positions = math.prod(size)
    return Factor(operand.argument, positions, channels * positions)


def _cut(product: Product, parts: int) -> Product:
    """As many equal parts of the depth as there are, `parts` at most."""
    count = max(n for n in range(1, parts + 1) if product.depth % n == 0)
    depth = product.depth // count
    left, right = product.left, product.right
    return replace(
        product,
        batch=count,
        depth=depth,
        left=replace(left, stride=depth * (left.leading if left.transposed else 1)),
        right=replace(right, stride=depth * (1 if right.transposed else right.leading)),
    )
