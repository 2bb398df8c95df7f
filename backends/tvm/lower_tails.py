"""Groups with a tail: the kernel of the group adds up what it stores, block by block, and a small one merges that.

Loads no tvm.
"""

from __future__ import annotations

import dataclasses
import math

from edgec.backends.base import Group, KernelCall, KernelSpec, Lowering
from edgec.backends.tvm.depthwise import DepthwiseSpec
from edgec.backends.tvm.epilogue import Broadcast, classify, same_order
from edgec.backends.tvm.gemm import GemmSpec
from edgec.backends.tvm.moments import FEWEST_ROWS, MergeMomentsSpec
from edgec.backends.tvm.products import Operand, Request
from edgec.backends.tvm.reductions import Term, term_spec
from edgec.backends.tvm.row_blocks import RowBlocks
from edgec.backends.tvm.tails import MomentParts, NormGradParts, Tail
from edgec.backends.tvm.tiling import even_split
from edgec.graph.ir import Node, Value
from edgec.graph.ops.convolution import Convolution
from edgec.graph.ops.moments import Moments
from edgec.graph.types import DType, tensor
from edgec.runtime.abi import MAX_KERNEL_ARGS, Storage

_OWN = 2  # operands of a convolution's kernel before those of its epilogue
_NEAR = 1 << 18  # bytes that a task may read and store before it adds them up: they stay in the second cache
_FAR = 1 << 23  # bytes of a tensor that is no longer near when a kernel has stored all of it

Cut = tuple[GemmSpec | DepthwiseSpec, RowBlocks]


def lower_with_tail(request: Request, body: Lowering) -> Lowering | None:
    """The calls of `body`, which are those of the group without its tail, the last of which also adds up what it
    stores; and the merge. None where no kernel does that.
    """
    tail, call = request.group.tail, body.calls[-1]
    stored = tail.inputs[0]
    written = set(request.alias) | set(request.alias.values())
    if stored not in call.operands or not written.isdisjoint((*tail.inputs[1:], *tail.outputs)):
        return None
    if not _is_matrix(tail, request.storage[stored]):
        return None
    request.workspaces.extend(body.workspaces)
    request.calls.extend(body.calls[:-1])
    lower = _lower_moments if isinstance(tail.op, Moments) else _lower_norm_grad
    return request.lowering() if lower(request, tail, call) else None


def pays(group: Group) -> bool:
    """Whether a tail takes less time than a kernel that reads what was stored.

    While it runs, the kernel's own operands stop streaming from memory: a product that reads much more than it stores
    loses more by that than it saves. So does a depthwise convolution that begins to read a tensor beside its own, for
    the gradients, unless results have left the caches before a second kernel could read them.
    """
    anchor, stored = group.anchor, group.tail.inputs[0].type
    if isinstance(anchor.op, Convolution) and anchor.op.groups > 1:
        return isinstance(group.tail.op, Moments) or stored.bytes >= _FAR
    return anchor.inputs[0].type.size <= 2 * stored.size


def without_tail(group: Group) -> Group:
    """The group that ends before its tail. What the tail reads must be an output."""
    nodes = group.nodes[:-1]
    read = {value for node in nodes for value in node.inputs}
    outputs = tuple(value for value in group.outputs if value.producer is not group.tail)
    return Group(nodes, tuple(value for value in group.inputs if value in read), outputs)


def _is_matrix(tail: Node, storage: Storage) -> bool:
    """Whether the tail reduces all rows of a matrix in memory whose columns are channels, in f32."""
    shape = tail.inputs[0].type.shape
    channel, dense = (
        (1, Storage.channels_last(shape)) if len(shape) == 4 else (len(shape) - 1, Storage.row_major(shape))
    )
    every = all(value.type.dtype is DType.F32 for value in (*tail.inputs, *tail.outputs))
    return every and same_order(storage, dense) and sorted((*tail.op.axes, channel)) == list(range(len(shape)))


def _lower_moments(request: Request, tail: Node, call: KernelCall) -> bool:
    x, *weights = tail.inputs
    channels, images = tail.outputs[0].type.size, weights[0].type.size if weights else 1
    if weights and weights[0].type.shape != (x.type.shape[0], *(1,) * (x.type.rank - 1)):
        return False
    if x.type.size < FEWEST_ROWS * images * channels:
        return False
    found = _blocks(call.spec, x.type.size // channels, channels, x.type.shape[0])
    if found is None:
        return False
    spec, blocks = found
    parts = MomentParts(blocks, images, channels)
    table = request.workspace(parts.results.elements)
    merge = MergeMomentsSpec(parts, bool(weights))
    if not _extend(request, call, spec, parts, (table,)):
        return False
    request.call(merge, (table, *weights, *tail.outputs), merge.tasks(request.target))
    return True


def _lower_norm_grad(request: Request, tail: Node, call: KernelCall) -> bool:
    dy, x, *statistics = tail.inputs
    channels = tail.outputs[0].type.size
    if not same_order(request.storage[x], request.storage[dy]):
        return False
    found = _blocks(call.spec, dy.type.size // channels, channels, dy.type.shape[0])
    if found is None or not all(_is_per_channel(request, value, dy, channels) for value in statistics):
        return False
    spec, blocks = found
    if blocks.count == 1:
        return _extend(request, call, spec, NormGradParts(blocks, channels), (x, *statistics, *tail.outputs))
    tables = [request.workspace(blocks.count * channels) for _ in tail.outputs]
    if not _extend(request, call, spec, NormGradParts(blocks, channels), (x, *statistics, *tables)):
        return False
    table, result = tensor(DType.F32, blocks.count, channels), tensor(DType.F32, channels)
    kinds = [(kind, Storage.row_major(kind.shape)) for kind in (table, table, result, result)]
    terms = (Term.VALUE, Term.SECOND)
    merge = term_spec("f32_norm_param_grad_combine", terms, kinds, (0,), 1, request.target)
    request.call(merge, (*tables, *tail.outputs), merge.tasks)
    return True


def _is_per_channel(request: Request, value: Value, dy: Value, channels: int) -> bool:
    if value.type.size != channels:
        return False
    pattern = classify(0, value.type.shape, request.storage[value], dy.type.shape, request.storage[dy])
    return channels == 1 or pattern == Broadcast(0, 1)


def _extend(
    request: Request,
    call: KernelCall,
    spec: GemmSpec | DepthwiseSpec,
    sums: MomentParts | NormGradParts,
    operands: tuple[Operand, ...],
) -> bool:
    """The call with a tail, whose operands follow; False where they are too many."""
    of = call.operands.index(request.group.tail.inputs[0]) - _OWN
    operands = (*call.operands, *operands)
    if len(operands) > MAX_KERNEL_ARGS:
        return False
    request.call(dataclasses.replace(spec, tail=Tail(of, sums)), operands, spec.tasks, call.macs)
    return True


def _blocks(spec: KernelSpec, rows: int, channels: int, images: int) -> Cut | None:
    """The kernel, cut so that each of its tasks stores whole blocks of a matrix of all these rows, and the blocks."""
    match spec:
        case GemmSpec():
            return _product_blocks(spec, rows, channels, images)
        case DepthwiseSpec():
            return _depthwise_blocks(spec)
        case _:
            return None


def _product_blocks(spec: GemmSpec, rows: int, channels: int, images: int) -> Cut | None:
    _, ys, xs = spec.left.rows
    strides = spec.output.strides[2:] if spec.left.lines == 1 else spec.output.strides
    dense = (ys.count * xs.count, xs.count, 1)[-len(strides) :]
    if spec.batch > 1 or spec.output.start or spec.output.columns != channels or spec.right.columns != channels:
        return None
    if spec.left.row_count != rows or strides != dense:
        return None
    if spec.left.lines > 1:
        units, unit_rows, longer = spec.left.lines, xs.count, 0
    else:
        height, taller, shorter = even_split(xs.count, spec.tile_rows)
        units = taller + shorter
        unit_rows, longer = (height - 1, taller) if shorter else (height, 0)
    # As few blocks as stay near: memory streams less while a block is added up. Groups of no narrow panel alone, whose
    # sums would be other code, and tiles of one height, so that blocks of all panels are the same rows.
    near = -(-4 * rows * (spec.right.depth + channels) // _NEAR)
    blocks = _whole_shares(units, images, min(spec.row_blocks, near), spec.row_blocks) if not longer else 0
    blocks = blocks or min(spec.row_blocks, near)
    groups = max(1, min(channels // (2 * spec.right.width), -(-spec.tasks // blocks)))
    spec = dataclasses.replace(spec, row_blocks=blocks, panel_groups=groups, tail_rows=spec.tile_rows)
    return spec, RowBlocks(units, blocks, unit_rows, longer)


def _whole_shares(units: int, images: int, fewest: int, most: int) -> int:
    """Into how many blocks, from `fewest` to `most`, units are cut so that each has an equal share of one image; 0 if
    that is not possible.
    """
    each = units // images
    cuts = (n for n in range(1, each + 1) if each % n == 0 and fewest <= n * images <= most)
    return next(cuts, 0) * images if units % images == 0 else 0


def _depthwise_blocks(spec: DepthwiseSpec) -> Cut | None:
    """Tasks of whole images, or equal shares of one that stay near until they are added up."""
    height, width = spec.size
    lines, odd = divmod(height, spec.lines)  # of a unit of work: one for each phase of a strided gradient
    if odd:
        return None
    image = 4 * spec.channels * (math.prod(spec.source_size) + height * width)
    wanted = max(-(-image // _NEAR), -(-spec.tasks // spec.images))
    units = spec.images * spec.lines
    spec = dataclasses.replace(spec, tasks=_whole_shares(units, spec.images, min(wanted * spec.images, units), units))
    return spec, RowBlocks(units, spec.tasks, lines * width)
