"""Pooling and its gradients over feature maps whose channels lie side by side: vectors of channels. Loads no tvm."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgec.backends.base import Argument, Lowering
from edgec.backends.tvm.epilogue import Epilogue, same_order
from edgec.backends.tvm.products import Request
from edgec.graph.ir import Node, Value
from edgec.graph.ops.avg_pool2d import AvgPool2d
from edgec.graph.ops.avg_pool2d_grad import AvgPool2dGrad
from edgec.graph.ops.max_pool2d import MaxPool2d
from edgec.graph.ops.max_pool2d_grad import MaxPool2dGrad
from edgec.graph.ops.max_pool2d_positions import MaxPool2dPositions, position_dtype
from edgec.graph.ops.window import Window
from edgec.graph.types import DType
from edgec.runtime.abi import Access, Storage

_TASK_READS = 1 << 14
_MOST_TASKS = 32
BLOCK_VECTORS = 4  # of channels in registers

Pool = MaxPool2d | MaxPool2dPositions | MaxPool2dGrad | AvgPool2d | AvgPool2dGrad
GRADIENTS = MaxPool2dGrad | AvgPool2dGrad


@dataclass(frozen=True)
class PoolSpec:
    """One result per output position and channel: pools and their gradients, all NHWC.

    Arguments are the source, the positions of a max pool that hands them out or of its gradient, and the epilogue's.
    `images`, `channels` and the window give the shapes. Units of work are rows of the result: images times its height.
    """

    op: Pool
    images: int
    channels: int
    window: Window
    epilogue: Epilogue
    tasks: int

    @property
    def stem(self) -> str:
        return f"f32_{self.op.name}{self.epilogue.label}"

    @property
    def source_size(self) -> tuple[int, int]:
        return self.window.output if isinstance(self.op, GRADIENTS) else self.window.size

    @property
    def result_size(self) -> tuple[int, int]:
        return self.window.size if isinstance(self.op, GRADIENTS) else self.window.output

    @property
    def arguments(self) -> tuple[Argument, ...]:
        source, pooled = (
            self.images * self.channels * math.prod(size) for size in (self.source_size, self.window.output)
        )
        arguments = [Argument(DType.F32, source, Access.READ)]
        if isinstance(self.op, MaxPool2dPositions | MaxPool2dGrad):
            access = Access.READ if isinstance(self.op, MaxPool2dGrad) else Access.WRITE
            arguments.append(Argument(position_dtype(self.op.kernel_size), pooled, access))
        return (*arguments, *self.epilogue.arguments)


def lower_pool(request: Request) -> Lowering | None:
    """A pool, or a gradient of one, where all feature maps are NHWC."""
    anchor = request.group.anchor
    op = anchor.op
    if not isinstance(op, Pool):
        return None
    positions = _positions(anchor)
    values = [*anchor.inputs, *anchor.outputs]
    stored = [value for value in values if value in request.storage]
    if any(not _is_channels_last(value.type.shape, request.storage[value]) for value in stored):
        return None
    if any(v.type.size == 0 or v.type.dtype is not DType.F32 for v in values if v not in positions):
        return None
    source, result = anchor.inputs[0].type.shape, anchor.outputs[0].type.shape
    bound = request.epilogue(Storage.channels_last(result), apart=positions)
    if bound is None:
        return None
    images, channels = source[:2]
    window = _window(op, source)
    pairs = images * channels * math.prod(window.output) * math.prod(window.kernel)  # of windows and taps
    tasks = _tasks(pairs, images * result[2])
    spec = PoolSpec(op, images, channels, window, bound.epilogue, tasks)
    request.call(spec, (anchor.inputs[0], *positions, *bound.operands), tasks)
    return request.lowering()


def _positions(anchor: Node) -> tuple[Value, ...]:
    match anchor.op:
        case MaxPool2dPositions():
            return anchor.outputs[1:]
        case MaxPool2dGrad():
            return anchor.inputs[1:]
        case _:
            return ()


def _window(op: Pool, source: tuple[int, ...]) -> Window:
    if isinstance(op, GRADIENTS):
        return op.window
    if isinstance(op, AvgPool2d):
        return op.window(source[2:])
    return Window(source[2:], op.kernel_size, op.strides, op.pads, op.dilations)


def _is_channels_last(shape: tuple[int, ...], storage: Storage) -> bool:
    return same_order(storage, Storage.channels_last(shape))


def _tasks(reads: int, units: int) -> int:
    return max(1, min(_MOST_TASKS, reads // _TASK_READS, units))
