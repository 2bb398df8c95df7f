"""Code of a generic kernel: a loop over its rows, in it loops over the rest of the output, in them one element."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from edgec.backends.base import Target
from edgec.backends.tvm._tvm import Expr, PrimFunc, T
from edgec.backends.tvm.builder import Index, Pointer, build_kernel, serial
from edgec.backends.tvm.computation import Computation, Computed, Memory
from edgec.backends.tvm.expressions import evaluate
from edgec.backends.tvm.generic import (
    batch_norm_code,
    bits_code,
    convolution_code,
    cumulative_code,
    dropout_code,
    indexing_code,
    matmul_code,
    movement_code,
    normalisation_code,
    pooling_code,
    ranking_code,
    reduction_code,
    resample_code,
    softmax_code,
)
from edgec.backends.tvm.generic.kernel import GenericSpec
from edgec.backends.tvm.generic.loops_code import loops, once
from edgec.backends.tvm.generic.tensor_code import Tensor, unravel
from edgec.graph.ops.arg_max import ArgMax
from edgec.graph.ops.arg_min import ArgMin
from edgec.graph.ops.avg_pool2d import AvgPool2d
from edgec.graph.ops.avg_pool2d_grad import AvgPool2dGrad
from edgec.graph.ops.base import Op
from edgec.graph.ops.batch_norm import BatchNorm
from edgec.graph.ops.batch_norm_train import BatchNormTrain
from edgec.graph.ops.concat import Concat
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.conv2d_weight_grad import Conv2dWeightGrad
from edgec.graph.ops.cum_prod import CumProd
from edgec.graph.ops.cum_prod_grad import CumProdGrad
from edgec.graph.ops.cum_sum import CumSum
from edgec.graph.ops.dropout import Dropout
from edgec.graph.ops.gate_by_bits import GateByBits
from edgec.graph.ops.gather import Gather
from edgec.graph.ops.gather_elements import GatherElements
from edgec.graph.ops.gather_nd import GatherNd
from edgec.graph.ops.gather_nd_grad import GatherNdGrad
from edgec.graph.ops.inside_bits import InsideBits
from edgec.graph.ops.layer_norm import LayerNorm
from edgec.graph.ops.layer_norm_grad import LayerNormGrad
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.max_pool2d import MaxPool2d
from edgec.graph.ops.max_pool2d_grad import MaxPool2dGrad
from edgec.graph.ops.max_pool2d_positions import MaxPool2dPositions
from edgec.graph.ops.moments import Moments
from edgec.graph.ops.non_max_suppression import NonMaxSuppression
from edgec.graph.ops.norm_param_grad import NormParamGrad
from edgec.graph.ops.pad import Pad
from edgec.graph.ops.reduce_max import ReduceMax
from edgec.graph.ops.reduce_mean import ReduceMean
from edgec.graph.ops.reduce_min import ReduceMin
from edgec.graph.ops.reduce_prod import ReduceProd
from edgec.graph.ops.reduce_sum import ReduceSum
from edgec.graph.ops.resample import Resample
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.rms_norm import RmsNorm
from edgec.graph.ops.rms_norm_grad import RmsNormGrad
from edgec.graph.ops.scatter_elements import ScatterElements
from edgec.graph.ops.scatter_nd import ScatterNd
from edgec.graph.ops.slice import Slice
from edgec.graph.ops.softmax import Softmax
from edgec.graph.ops.softmax_cross_entropy import SoftmaxCrossEntropy
from edgec.graph.ops.top_k import TopK
from edgec.graph.ops.transpose import Transpose

# op, operands, index -> the element of each result at that index. Elementwise ops stand in `expressions`.
ELEMENT: Mapping[type[Op], Callable[[Op, Sequence[Tensor], Sequence[Index]], tuple[Expr, ...]]] = {
    Conv2d: convolution_code.conv2d,
    Conv2dInputGrad: convolution_code.conv2d_input_grad,
    Conv2dWeightGrad: convolution_code.conv2d_weight_grad,
    MatMul: matmul_code.matmul,
    MaxPool2d: pooling_code.max_pool2d,
    MaxPool2dPositions: pooling_code.max_pool2d_positions,
    MaxPool2dGrad: pooling_code.max_pool2d_grad,
    AvgPool2d: pooling_code.avg_pool2d,
    AvgPool2dGrad: pooling_code.avg_pool2d_grad,
    BatchNorm: batch_norm_code.batch_norm,
    Dropout: dropout_code.dropout,
    Reshape: movement_code.reshape,
    Transpose: movement_code.transpose,
    Concat: movement_code.concat,
    Slice: movement_code.slice_,
    Pad: movement_code.pad,
    ReduceSum: reduction_code.reduce_sum,
    ReduceMean: reduction_code.reduce_mean,
    ReduceMax: reduction_code.reduce_max,
    ReduceMin: reduction_code.reduce_min,
    ReduceProd: reduction_code.reduce_prod,
    ArgMax: ranking_code.arg_reduce,
    ArgMin: ranking_code.arg_reduce,
    InsideBits: bits_code.inside_bits,
    GateByBits: bits_code.gate_by_bits,
    Gather: indexing_code.gather,
    GatherElements: indexing_code.gather_elements,
    GatherNd: indexing_code.gather_nd,
    Resample: resample_code.resample,
}

# op, operands, results (None: not wanted), row -> statements that write the row. Nothing can be fused behind these.
ROW: Mapping[type[Op], Callable[[Op, Sequence[Tensor], Sequence[Tensor | None], Index], None]] = {
    Softmax: softmax_code.softmax,
    SoftmaxCrossEntropy: softmax_code.softmax_cross_entropy,
    CumSum: cumulative_code.cumulative,
    CumProd: cumulative_code.cumulative,
    CumProdGrad: cumulative_code.cum_prod_grad,
    TopK: ranking_code.top_k,
    NonMaxSuppression: ranking_code.non_max_suppression,
    LayerNorm: normalisation_code.layer_norm,
    LayerNormGrad: normalisation_code.row_norm_grad,
    RmsNormGrad: normalisation_code.row_norm_grad,
    BatchNormTrain: normalisation_code.batch_norm_train,
    Moments: normalisation_code.moments,
    NormParamGrad: normalisation_code.norm_param_grad,
    RmsNorm: normalisation_code.rms_norm,
    GatherNdGrad: indexing_code.gather_nd_grad,
    ScatterElements: indexing_code.scatter_elements,
    ScatterNd: indexing_code.scatter_nd,
}


def emit_generic(spec: GenericSpec, target: Target) -> PrimFunc:
    """The same code for every target."""

    def body(*parameters: Pointer | Expr) -> None:
        *pointers, lo, hi = parameters
        if not any(store.memory.type.size for store in spec.computation.stores):
            T.evaluate(0)  # a loop over nothing ends the code generator
            return
        per_task = -(-spec.rows // max(spec.tasks, 1))
        stop = T.min(hi * per_task, spec.rows)
        with serial(lo * per_task, stop) as row:
            emit_row(spec.computation, spec.row_axes, pointers, row)

    return build_kernel(spec.arguments, body)


def emit_row(computation: Computation, row_axes: int, pointers: Sequence[Pointer], row: Index) -> None:
    """Row `row` of an anchor with rows of its own, else of those that `row_axes` leading axes of the output make."""

    def tensor(memory: Memory) -> Tensor:
        return Tensor(pointers[memory.argument], memory.type, memory.storage)

    anchor = computation.anchor
    if type(anchor.op) in ROW:
        outputs = {store.value.output: tensor(store.memory) for store in computation.stores}
        wanted = [outputs.get(i) for i in range(max(outputs) + 1)]
        ROW[type(anchor.op)](anchor.op, [tensor(operand) for operand in anchor.operands], wanted, row)
        return
    shape = computation.shape
    with loops(*shape[row_axes:]) as inner:
        emit_element(computation, tensor, [*unravel(row, shape[:row_axes]), *inner])


def emit_element(
    computation: Computation,
    tensor: Callable[[Memory], Tensor],
    index: Sequence[Index],
    anchor: tuple[Expr, ...] | None = None,
) -> None:
    """One element of every result of the group; `anchor`: those of its first step, where they are known already."""
    done: list[tuple[Expr, ...]] = [] if anchor is None else [anchor]

    def element(operand: Memory | Computed) -> Expr:
        match operand:
            case Computed(step, output):
                return done[step][output]
            case Memory():
                return tensor(operand).load_broadcast(index)

    for step in computation.steps[len(done) :]:
        if type(step.op) in ELEMENT:
            done.append(ELEMENT[type(step.op)](step.op, [tensor(operand) for operand in step.operands], index))
        else:
            done.append(evaluate(step.op, [element(operand) for operand in step.operands]))
    # All reads come before the first store: an output may share an input's memory.
    results = [(element(store.value), store.memory) for store in computation.stores]
    with once():
        for value, memory in results:
            tensor(memory).store(index, value)
