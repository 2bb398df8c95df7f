"""Pooling and its gradients over feature maps whose channels lie side by side: vectors of channels. Loads no tvm."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgec.backends.base import Argument, Lowering
from edgec.backends.tvm.epilogue import Epilogue, same_order
from edgec.backends.tvm.products import Request
from edgec.graph.ops.avg_pool2d import AvgPool2d
from edgec.graph.ops.avg_pool2d_grad import AvgPool2dGrad
from edgec.graph.ops.max_pool2d import MaxPool2d
from edgec.graph.ops.max_pool2d_grad import MaxPool2dGrad
from edgec.graph.ops.window import Window
from edgec.graph.types import DType
from edgec.runtime.abi import Access, Storage

_TASK_READS = 1 << 14
_MOST_TASKS = 32
BLOCK_VECTORS = 4  # of channels in registers


@dataclass(frozen=True)
class PoolSpec:
    """One result per output position and channel: max and average pools, and the gradient of the average, all NHWC.

    `images`, `channels` and the window give the shapes. Units of work are rows of the result: images times its height.
    """

    op: MaxPool2d | AvgPool2d | AvgPool2dGrad
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
        return self.window.output if isinstance(self.op, AvgPool2dGrad) else self.window.size

    @property
    def result_size(self) -> tuple[int, int]:
        return self.window.size if isinstance(self.op, AvgPool2dGrad) else self.window.output

    @property
    def arguments(self) -> tuple[Argument, ...]:
        elements = self.images * self.channels * math.prod(self.source_size)
        return (Argument(DType.F32, elements, Access.READ), *self.epilogue.arguments)


@dataclass(frozen=True)
class MaxPoolGradSpec:
    """dy, x, y -> dx of a max pool, all NHWC. Units of work are images times blocks of channels."""

    images: int
    channels: int
    window: Window
    tasks: int

    @property
    def stem(self) -> str:
        return "f32_max_pool2d_grad"

    @property
    def arguments(self) -> tuple[Argument, ...]:
        pooled, full = (
            self.images * self.channels * math.prod(size) for size in (self.window.output, self.window.size)
        )
        return (
            Argument(DType.F32, pooled, Access.READ),
            Argument(DType.F32, full, Access.READ),
            Argument(DType.F32, pooled, Access.READ),
            Argument(DType.F32, full, Access.WRITE),
        )

    @property
    def windows_tile_the_input(self) -> bool:
        """Whether every input element lies in exactly one window."""
        window = self.window
        return (
            window.strides == window.kernel
            and window.dilations == (1, 1)
            and not any(window.low + window.high)
            and all(n % k == 0 for n, k in zip(window.size, window.kernel, strict=True))
        )


def lower_pool(request: Request) -> Lowering | None:
    """A pool, or a gradient of one, where all feature maps are NHWC."""
    anchor = request.group.anchor
    op = anchor.op
    if not isinstance(op, (MaxPool2d, MaxPool2dGrad, AvgPool2d, AvgPool2dGrad)):
        return None
    values = [*anchor.inputs, *anchor.outputs]
    stored = [value for value in values if value in request.storage]
    if any(not _is_channels_last(value.type.shape, request.storage[value]) for value in stored):
        return None
    if any(value.type.dtype is not DType.F32 or value.type.size == 0 for value in values):
        return None
    source, result = anchor.inputs[0].type.shape, anchor.output.type.shape
    images, channels = source[:2]
    if isinstance(op, MaxPool2dGrad):
        window = Window(result[2:], op.kernel_size, op.strides, op.pads, op.dilations)
        reads = math.prod(result)
        units = images * -(-channels // (BLOCK_VECTORS * request.target.lanes))
        if request.group.epilogue or anchor.output in request.alias:
            return None
        tasks = _tasks(reads, units)
        request.call(MaxPoolGradSpec(images, channels, window, tasks), (*anchor.inputs, anchor.output), tasks)
        return request.lowering()
    bound = request.epilogue(Storage.channels_last(result))
    if bound is None:
        return None
    window = _window(op, source)
    tasks = _tasks(math.prod(result) * math.prod(window.kernel), images * result[2])
    spec = PoolSpec(op, images, channels, window, bound.epilogue, tasks)
    request.call(spec, (anchor.inputs[0], *bound.operands), tasks)
    return request.lowering()


def _window(op: MaxPool2d | AvgPool2d | AvgPool2dGrad, source: tuple[int, ...]) -> Window:
    if isinstance(op, AvgPool2dGrad):
        return op.window
    if isinstance(op, AvgPool2d):
        return op.window(source[2:])
    return Window(source[2:], op.kernel_size, op.strides, op.pads, op.dilations)


def _is_channels_last(shape: tuple[int, ...], storage: Storage) -> bool:
    return same_order(storage, Storage.channels_last(shape))


def _tasks(reads: int, units: int) -> int:
    return max(1, min(_MOST_TASKS, reads // _TASK_READS, units))
