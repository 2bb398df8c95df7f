"""Which storage each value gets: panels for what a GEMM reads as its right matrix, NHWC for feature maps, else
row-major.

A rule looks at one op, not at a program, so forward, backward and update of a layer agree without being told.
Nothing here loads tvm.
"""

from __future__ import annotations

from edgec.backends.base import Target
from edgec.backends.tvm.tiling import panel_width
from edgec.graph.ir import Node, Role, Value
from edgec.graph.ops.accumulate import Accumulate
from edgec.graph.ops.adam_update import AdamUpdate
from edgec.graph.ops.avg_pool2d import AvgPool2d
from edgec.graph.ops.avg_pool2d_grad import AvgPool2dGrad
from edgec.graph.ops.base import Op
from edgec.graph.ops.broadcast_to import BroadcastTo
from edgec.graph.ops.concat import Concat
from edgec.graph.ops.conv2d import Conv2d
from edgec.graph.ops.conv2d_input_grad import Conv2dInputGrad
from edgec.graph.ops.conv2d_weight_grad import Conv2dWeightGrad
from edgec.graph.ops.convolution import Convolution
from edgec.graph.ops.lion_update import LionUpdate
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.max_pool2d import MaxPool2d
from edgec.graph.ops.max_pool2d_grad import MaxPool2dGrad
from edgec.graph.ops.max_pool2d_positions import MaxPool2dPositions
from edgec.graph.ops.reshape import Reshape
from edgec.graph.ops.sgd_update import SgdUpdate
from edgec.graph.ops.slice import Slice
from edgec.graph.ops.transpose import Transpose
from edgec.runtime.abi import Storage

_POOLS = (MaxPool2d, MaxPool2dPositions, MaxPool2dGrad, AvgPool2d, AvgPool2dGrad)
_MAKE_FEATURE_MAPS = (Convolution, *_POOLS)
_UPDATES = (Accumulate, AdamUpdate, LionUpdate, SgdUpdate)
_WEIGHT_ROLES = (Role.PARAM, Role.STATE, Role.CONSTANT)


def is_depthwise(op: Convolution, weight: tuple[int, ...]) -> bool:
    """One filter per channel; a channel multiplier is not covered."""
    return op.groups == weight[0] and weight[1] == 1


def convolution_weight(op: Convolution, shape: tuple[int, ...], target: Target) -> Storage:
    """w[O,I,kh,kw]: taps, then input channels, then panels of output channels; depthwise: taps, then channels."""
    outputs, inputs, height, width = shape
    if is_depthwise(op, shape) and op.groups > 1:
        return Storage(shape, (2, 3, 1, 0))
    if op.groups == 1:
        return Storage(shape, (2, 3, 1, 0), _block(outputs, target))
    dims = (op.groups, outputs // op.groups, inputs, height, width)
    return Storage(dims, (0, 3, 4, 2, 1), _block(dims[1], target))


def matmul_weight(op: MatMul, shape: tuple[int, ...], target: Target) -> Storage:
    """A 2-D right operand: depth, then panels of columns."""
    perm = (1, 0) if op.transpose_b else (0, 1)
    return Storage(shape, perm, _block(shape[perm[1]], target))


def _block(columns: int, target: Target) -> int:
    width = panel_width(columns, target)
    return width if width < columns else 0


class Layouts:
    """The storages of the values of a graph on a target with vectors. What was found is kept, since who asks for every
    value of a long chain of elementwise nodes, such as the steps of an LSTM, would follow it each time: an object is
    for a graph as it is, and a changed one wants another.
    """

    def __init__(self, target: Target):
        self._target = target
        self._weights: dict[Value, Storage | None] = {}

    def of_weight(self, value: Value) -> Storage | None:
        """Of a weight, of its gradient, or of something computed from either; None for other values."""
        seen: set[Value] = set()
        stack = [value]
        while stack:
            near = stack.pop()
            if near in seen:
                continue
            seen.add(near)
            is_known = near in self._weights
            storage = self._weights[near] if is_known else _storage_of_weight(near, self._target)
            if storage is not None:
                self._weights[value] = storage
                return storage
            if not is_known:
                stack += reversed(_tied(near))
        self._weights.update(dict.fromkeys(seen))
        return None

    def of_activation(self, value: Value) -> Storage:
        """Of a computed value, or the one that an input should be copied to."""
        found = self.of_weight(value)
        if found is not None:
            return found
        shape = value.type.shape
        if len(shape) != 4 or not _is_feature_map(value) or _is_padded_by_readers(value) or _is_moved_by_readers(value):
            return Storage.row_major(shape)
        return Storage.channels_last(shape)

    def expected(self, value: Value) -> Storage:
        """Of any value of a program, before the compiler has chosen."""
        if value.role is None:
            return self.of_activation(value)
        if value.role in (Role.INPUT, Role.SCALAR):
            return Storage.row_major(value.type.shape)
        return self.of_weight(value) or Storage.row_major(value.type.shape)


def _storage_of_weight(value: Value, target: Target) -> Storage | None:
    """By what reads or makes the value: forward products first, as all others follow them."""
    shape = value.type.shape
    wanted = [_use_as_weight(node, slot, shape, target) for node, slot in value.uses]
    for is_forward in (True, False):
        for (node, _), storage in zip(value.uses, wanted, strict=True):
            if storage is not None and isinstance(node.op, (Conv2d, MatMul)) == is_forward:
                return storage
    if value.producer is not None and isinstance(value.producer.op, Conv2dWeightGrad):
        return convolution_weight(value.producer.op, shape, target)
    return None


def _tied(value: Value) -> list[Value]:
    """Whatever an elementwise op combines with a weight lies as the weight does: an update with its gradient and
    averages.
    """
    near = [node for node, _ in value.uses if isinstance(node.op, _UPDATES)]
    if value.producer is not None and value.producer.op.elementwise:
        near.append(value.producer)
    return [other for node in near for other in node.inputs if other.type.shape == value.type.shape]


def _use_as_weight(node: Node, slot: int, shape: tuple[int, ...], target: Target) -> Storage | None:
    match node.op:
        case Reshape() if _is_weight(node.output):
            # A frozen weight lies as what it is read as: then the reshape is a view.
            return _storage_of_weight(node.output, target)
        case Conv2d() | Conv2dInputGrad() if slot == 1:
            return convolution_weight(node.op, shape, target)
        case MatMul() if slot == 1 and len(shape) == 2 and _is_weight(node.inputs[1]):
            # The input gradient reads the transpose of what the forward product reads.
            return matmul_weight(node.op, shape, target)
    return None


def scalar_storage(value: Value) -> Storage:
    """Storage of a computed value on a target without vectors: row-major, but for feature maps that are cut into strips
    of rows or joined from them. Those have their rows outermost, so that a strip is one run of memory.
    """
    shape = value.type.shape
    near = (value.producer, *(node for node, _ in value.uses))
    if value.role is None and len(shape) == 4 and any(map(_is_of_strips, near)):
        return Storage(shape, (0, 2, 1, 3))
    return Storage.row_major(shape)


def _is_weight(value: Value) -> bool:
    """Whether a value is a weight, or a frozen one under another shape."""
    frozen = value
    while frozen.producer is not None and isinstance(frozen.producer.op, Reshape):
        frozen = frozen.producer.inputs[0]
    return frozen.role in _WEIGHT_ROLES and (frozen is value or not frozen.trainable)


def _is_of_strips(node: Node | None) -> bool:
    match node.op if node is not None else None:
        case Concat(axis=2):
            return True
        case Slice(starts=starts, ends=ends, steps=steps):
            shape = node.inputs[0].type.shape
            cut = [axis for axis in range(len(shape)) if (starts[axis], ends[axis]) != (0, shape[axis])]
            return max(cut, default=0) == 2 and max(steps) == 1
    return False


def _is_padded_by_readers(value: Value) -> bool:
    """Whether an input is read by padded convolutions alone: their padding copy takes any order, so no other is
    needed.
    """
    ops = [node.op for node, slot in value.uses if slot == 0]
    dense = [op for op in ops if isinstance(op, (Conv2d, Conv2dWeightGrad)) and op.groups == 1 and any(op.pads)]
    return value.role is Role.INPUT and len(dense) == len(value.uses) > 0


def _is_moved_by_readers(value: Value) -> bool:
    """Whether an input is only transposed or cut: that reads any order."""
    moves = (Transpose, Slice)
    return value.role is Role.INPUT and len(value.uses) > 0 and all(isinstance(n.op, moves) for n, _ in value.uses)


def _is_feature_map(value: Value) -> bool:
    """Whether a rank-4 value is [N,C,H,W] rather than a batch of matrices: what it was computed from last, of rank 4
    all the way, is a convolution's or a pool's and not made up from another rank, or an input that no product of
    matrices reads; or it goes to a pool.
    """
    if _goes_to(value, _POOLS):  # convolutions pad a copy of what lies in another order; pools have no such copy
        return True
    while value.producer is not None:
        node = value.producer
        if isinstance(node.op, _MAKE_FEATURE_MAPS) or _is_spread_over_pixels(node):
            return True
        if isinstance(node.op, (MatMul, Reshape, Transpose)):
            return False
        computed = [v for v in node.inputs if v.type.rank == 4 and v.producer is not None]
        if not computed:
            like_weight = any(v.role in _WEIGHT_ROLES and v.type.shape == value.type.shape for v in node.inputs)
            return not (like_weight or _goes_to(value, (MatMul,)))
        value = max(computed, key=lambda v: v.type.size)  # of what is broadcast, the others
    return not _goes_to(value, (MatMul,))


def _goes_to(value: Value, ops: tuple[type[Op], ...]) -> bool:
    """Whether one of these ops reads what is computed from a value element by element."""
    seen, ahead = {value}, [value]
    while ahead:
        for node, _ in ahead.pop().uses:
            if isinstance(node.op, ops):
                return True
            fresh = {y for y in node.outputs if node.op.elementwise and y.type.shape == value.type.shape} - seen
            seen |= fresh
            ahead += fresh
    return False


def _is_spread_over_pixels(node: Node) -> bool:
    """Whether one value for each image and channel goes to all its pixels: the gradient of a mean over them."""
    return isinstance(node.op, BroadcastTo) and node.inputs[0].type.shape[2:] == (1, 1) != node.output.type.shape[2:]
