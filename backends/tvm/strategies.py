"""The ordered list of strategies: the first that returns a `Lowering` for a group wins; the generic kernel takes
the rest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

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
from edgec.backends.tvm.lower_tails import lower_with_tail, without_tail
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
from edgec.graph.ir import Node, Value
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
        return whole or in_pieces(group, [(node,) for node in group.nodes], storage, alias, target, tuning)
    if group.tail is not None:
        whole = with_tail(group, storage, alias, target, tuning)
        return whole or in_pieces(group, [group.nodes[:-1], (group.tail,)], storage, alias, target, tuning)
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


def with_tail(
    group: Group,
    storage: Mapping[Value, Storage],
    alias: Mapping[Value, Value],
    target: Target,
    tuning: Chooser = MODEL,
) -> Lowering | None:
    """A group whose kernel makes the sums of its tail as well; None where there is no such kernel."""
    if target.lanes == 1 or target.arch.is_device or group.tail.inputs[0] not in group.outputs:
        return None
    body = lower_group(without_tail(group), storage, alias, target, tuning)
    return lower_with_tail(Request(group, storage, alias, target, tuning), body)


def in_pieces(
    group: Group,
    pieces: Sequence[Sequence[Node]],
    storage: Mapping[Value, Storage],
    alias: Mapping[Value, Value],
    target: Target,
    tuning: Chooser,
) -> Lowering:
    """Each piece of a group by kernels of its own; what lies between them in workspaces."""
    calls: list[KernelCall] = []
    workspaces: list[Workspace] = []

    def workspace(size: int) -> Workspace:
        workspaces.append(Workspace(len(workspaces), size))
        return workspaces[-1]

    whole = {node for node in group.nodes if len(node.outputs) > 1}  # which make all their results or none
    handed_on: dict[Value, Workspace] = {}
    for piece in pieces:
        made = [value for node in piece for value in node.outputs]
        read = dict.fromkeys(value for node in piece for value in node.inputs if value not in made)
        results = [v for v in made if v in group.outputs or v.producer in whole or _read_outside(v, piece)]
        handed_on |= {value: workspace(value.type.bytes) for value in results if value not in group.outputs}
        shared = {value: alias[value] for value in results if alias.get(value) in read}
        part = Group(tuple(piece), tuple(read), tuple(results))
        lowering = lower_group(part, storage, shared, target, tuning)
        own = {scratch: workspace(scratch.bytes) for scratch in lowering.workspaces}
        for call in lowering.calls:
            operands = tuple(own.get(v, v) if isinstance(v, Workspace) else handed_on.get(v, v) for v in call.operands)
            calls.append(dataclasses.replace(call, operands=operands))
    return Lowering(tuple(calls), tuple(workspaces))


def _read_outside(value: Value, piece: Sequence[Node]) -> bool:
    return any(node not in piece for node, _ in value.uses)
