"""Spec class -> function that writes its kernel. Loads tvm: only compile workers and tests import this module."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgec.backends.base import KernelSpec, Target
from edgec.backends.tvm._tvm import PrimFunc
from edgec.backends.tvm.attention import AttentionGradientSpec, AttentionSpec
from edgec.backends.tvm.attention_code import emit_attention, emit_attention_gradient
from edgec.backends.tvm.bits import GateByBitsSpec, InsideBitsSpec
from edgec.backends.tvm.bits_code import emit_gate_by_bits, emit_inside_bits
from edgec.backends.tvm.builder import DeviceKernel, build_device_kernel, instructions_of
from edgec.backends.tvm.depthwise import DepthwiseReduceSpec, DepthwiseSpec
from edgec.backends.tvm.depthwise_code import emit_depthwise
from edgec.backends.tvm.depthwise_reduce_code import emit_depthwise_reduce
from edgec.backends.tvm.dots import DotSpec
from edgec.backends.tvm.dots_code import emit_dots
from edgec.backends.tvm.dropout import DropoutSpec
from edgec.backends.tvm.dropout_code import emit_dropout
from edgec.backends.tvm.gathers import GatherSpec
from edgec.backends.tvm.gathers_code import emit_gather
from edgec.backends.tvm.gemm import GemmReduceSpec, GemmSpec
from edgec.backends.tvm.gemm_code import emit_gemm
from edgec.backends.tvm.gemm_reduce_code import emit_gemm_reduce
from edgec.backends.tvm.generic.kernel import GenericSpec
from edgec.backends.tvm.generic.kernel_code import emit_generic
from edgec.backends.tvm.gpu.depthwise import DepthwiseSpec as DeviceDepthwiseSpec
from edgec.backends.tvm.gpu.depthwise import DepthwiseSumSpec as DeviceDepthwiseSumSpec
from edgec.backends.tvm.gpu.depthwise_code import emit_device_depthwise, emit_device_depthwise_sum
from edgec.backends.tvm.gpu.kernels import ItemSpec, TeamSpec
from edgec.backends.tvm.gpu.kernels_code import emit_item, emit_team
from edgec.backends.tvm.gpu.launches import GuardedSpec, MergedSpec
from edgec.backends.tvm.gpu.launches_code import guarded, merged
from edgec.backends.tvm.gpu.parts import PartsSpec
from edgec.backends.tvm.gpu.parts_code import emit_parts
from edgec.backends.tvm.gpu.products import ProductSpec
from edgec.backends.tvm.gpu.products_code import emit_product
from edgec.backends.tvm.gpu.sums import SumSpec
from edgec.backends.tvm.gpu.sums_code import emit_sum
from edgec.backends.tvm.gpu.tensor_cores import TensorCoreSpec
from edgec.backends.tvm.gpu.tensor_cores_code import emit_tensor_cores
from edgec.backends.tvm.maps import MapSpec
from edgec.backends.tvm.maps_code import emit_map
from edgec.backends.tvm.moments import MergeMomentsSpec, PartMomentsSpec
from edgec.backends.tvm.moments_code import emit_merge_moments, emit_part_moments
from edgec.backends.tvm.pools import PoolSpec
from edgec.backends.tvm.pools_code import emit_pool
from edgec.backends.tvm.reductions import ReduceSpec
from edgec.backends.tvm.reductions_code import emit_reduction
from edgec.backends.tvm.repack import PadSpec, TransposeSpec
from edgec.backends.tvm.repack_code import emit_pad, emit_transpose
from edgec.backends.tvm.row_norm_grads import RowNormGradSpec
from edgec.backends.tvm.row_norm_grads_code import emit_row_norm_grad
from edgec.backends.tvm.row_norms import RowNormSpec
from edgec.backends.tvm.row_norms_code import emit_row_norm
from edgec.backends.tvm.scatter import GatherGradSpec
from edgec.backends.tvm.scatter_code import emit_gather_grad
from edgec.backends.tvm.softmax import CrossEntropySpec, SoftmaxSpec
from edgec.backends.tvm.softmax_code import emit_cross_entropy, emit_softmax
from edgec.backends.tvm.winograd import WinogradFilterSpec, WinogradSpec
from edgec.backends.tvm.winograd_code import emit_winograd, emit_winograd_filter

# Spec class: emitter(spec, target) -> PrimFunc, of devices DeviceKernel. One line per kind of kernel.
EMITTERS: Mapping[type, Callable[..., PrimFunc | DeviceKernel]] = {
    AttentionSpec: emit_attention,
    AttentionGradientSpec: emit_attention_gradient,
    DepthwiseReduceSpec: emit_depthwise_reduce,
    DepthwiseSpec: emit_depthwise,
    GatherSpec: emit_gather,
    GateByBitsSpec: emit_gate_by_bits,
    GemmReduceSpec: emit_gemm_reduce,
    GemmSpec: emit_gemm,
    InsideBitsSpec: emit_inside_bits,
    MapSpec: emit_map,
    MergeMomentsSpec: emit_merge_moments,
    PadSpec: emit_pad,
    PartMomentsSpec: emit_part_moments,
    PoolSpec: emit_pool,
    ReduceSpec: emit_reduction,
    RowNormSpec: emit_row_norm,
    RowNormGradSpec: emit_row_norm_grad,
    DotSpec: emit_dots,
    DropoutSpec: emit_dropout,
    GatherGradSpec: emit_gather_grad,
    SoftmaxSpec: emit_softmax,
    CrossEntropySpec: emit_cross_entropy,
    TransposeSpec: emit_transpose,
    WinogradFilterSpec: emit_winograd_filter,
    WinogradSpec: emit_winograd,
    GenericSpec: emit_generic,
    DeviceDepthwiseSpec: emit_device_depthwise,
    DeviceDepthwiseSumSpec: emit_device_depthwise_sum,
    ItemSpec: emit_item,
    PartsSpec: emit_parts,
    ProductSpec: emit_product,
    SumSpec: emit_sum,
    TeamSpec: emit_team,
    TensorCoreSpec: emit_tensor_cores,
}


def emit(spec: KernelSpec, target: Target, symbol: str) -> PrimFunc:
    """The kernel of a spec as a TVM function that is exported as `symbol`."""
    with instructions_of(target):
        made = _device_kernel(spec, target) if target.arch.is_device else EMITTERS[type(spec)](spec, target)
        function = build_device_kernel(made) if isinstance(made, DeviceKernel) else made
    return function.with_attr("global_symbol", symbol)


def _device_kernel(spec: KernelSpec, target: Target) -> DeviceKernel:
    if isinstance(spec, GuardedSpec):
        return guarded(_device_kernel(spec.spec, target), spec)
    if isinstance(spec, MergedSpec):
        return merged([_device_kernel(part.spec, target) for part in spec.parts], spec)
    return EMITTERS[type(spec)](spec, target)
