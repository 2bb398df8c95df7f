"""The ordered list of strategies: the first that returns a `Lowering` for a group wins; the generic kernel takes
the rest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from edgec.backends.base import Group, KernelCall, Lowering, Target, Workspace
from edgec.backends.tvm.attention import lower_attention
from edgec.backends.tvm.bits import lower_bits
from edgec.backends.tvm.conv import lower_conv2d, lower_conv2d_input_grad, lower_conv2d_weight_grad
from edgec.backends.tvm.conv_depthwise import lower_depthwise, lower_depthwise_weight_grad
from edgec.backends.tvm.conv_winograd import lower_winograd
from edgec.backends.tvm.dropout import lower_dropout
from edgec.backends.tvm.gathers import lower_gather
from edgec.backends.tvm.generic.kernel import lower_generic
from edgec.backends.tvm.gpu.depthwise import lower_device_depthwise
from edgec.backends.tvm.gpu.kernels import lower_device
from edgec.backends.tvm.gpu.products import lower_device_product
from edgec.backends.tvm.gpu.sums import lower_device_sum
from edgec.backends.tvm.gpu.tensor_cores import lower_tensor_cores
from edgec.backends.tvm.maps import lower_map
from edgec.backends.tvm.matmul import lower_matmul
from edgec.backends.tvm.pools import lower_pool
from edgec.backends.tvm.products import Request
from edgec.backends.tvm.reductions import lower_reduction
from edgec.backends.tvm.row_norm_grads import lower_row_norm_grad
from edgec.backends.tvm.row_norms import lower_row_norm
from edgec.backends.tvm.scatter import lower_gather_grad
from edgec.backends.tvm.softmax import lower_softmax
from edgec.backends.tvm.statistics import lower_statistics
from edgec.backends.tvm.tuning.choice import MODEL, Chooser
from edgec.graph.ir import Value
from edgec.runtime.abi import Storage

Strategy = Callable[[Request], Lowering | None]

# For targets with vectors; micro-controllers get the generic kernels.
STRATEGIES: tuple[Strategy, ...] = (
    lower_depthwise,
    lower_depthwise_weight_grad,
    lower_winograd,
    lower_conv2d,
    lower_conv2d_input_grad,
    lower_conv2d_weight_grad,
    lower_matmul,
    lower_pool,
    lower_reduction,
    lower_softmax,
    lower_row_norm,
    lower_gather,
    lower_statistics,
    lower_row_norm_grad,
    lower_dropout,
    lower_gather_grad,
    lower_bits,
    lower_map,
)


def lower_group(
    group: Group,
    storage: Mapping[Value, Storage],
    alias: Mapping[Value, Value],
    target: Target,
    tuning: Chooser = MODEL,
) -> Lowering:
    """Kernel calls for any group. `tuning` takes what a strategy leaves open."""
    if group.is_attention:
        whole = lower_attention(Request(group, storage, alias, target, tuning)) if target.lanes > 1 else None
        return whole or node_by_node(group, storage, target, tuning)
    if target.arch.is_device:
        return (
            lower_device_depthwise(group, storage, alias)
            or lower_tensor_cores(group, storage, alias, target)
            or lower_device_product(group, storage, alias)
            or lower_device_sum(group, storage, alias)
            or lower_device(group, storage, alias)
        )
    if target.lanes > 1 and any(value.type.size for value in group.outputs):
        for strategy in STRATEGIES:
            # A request collects calls, so one that was given up must not be used again.
            lowering = strategy(Request(group, storage, alias, target, tuning))
            if lowering is not None:
                return lowering
    return lower_generic(group, storage, alias, target)


def node_by_node(group: Group, storage: Mapping[Value, Storage], target: Target, tuning: Chooser) -> Lowering:
    """Each node of a group by a kernel of its own; what lies between them in workspaces."""
    calls: list[KernelCall] = []
    workspaces: list[Workspace] = []

    def workspace(size: int) -> Workspace:
        workspaces.append(Workspace(len(workspaces), size))
        return workspaces[-1]

    inner = {v: workspace(v.type.bytes) for node in group.nodes for v in node.outputs if v not in group.outputs}
    for node in group.nodes:
        alone = Group((node,), tuple(dict.fromkeys(node.inputs)), node.outputs)
        lowering = lower_group(alone, storage, {}, target, tuning)
        own = {scratch: workspace(scratch.bytes) for scratch in lowering.workspaces}
        for call in lowering.calls:
            operands = tuple(own.get(v, v) if isinstance(v, Workspace) else inner.get(v, v) for v in call.operands)
            calls.append(dataclasses.replace(call, operands=operands))
    return Lowering(tuple(calls), tuple(workspaces))
