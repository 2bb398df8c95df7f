"""The arithmetic of ONNX arguments: axes, shapes, slices and windows, normalised and checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgec.frontend.onnx.model import Node, Unsupported

MAX_AXES = 32

Shape = tuple[int, ...]
Pair = tuple[int, int]


def normal_axis(axis: int, rank: int) -> int:
    """`axis` counted from the front."""
    if not -rank <= axis < rank:
        raise Unsupported(f"axis {axis} is out of range for rank {rank}")
    return axis % rank


def normal_axes(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """`axes` counted from the front, in ascending order."""
    normal = tuple(sorted(normal_axis(axis, rank) for axis in axes))
    if len(set(normal)) < len(normal):
        raise Unsupported(f"axes {list(axes)} name one axis twice")
    return normal


def reshape_target(shape: Shape, wanted: Sequence[int], *, allow_zero: bool) -> Shape:
    """The shape that ONNX `Reshape` makes: 0 keeps an extent (unless `allow_zero`), one -1 takes what is left."""
    text = f"shape {list(wanted)} does not fit {list(shape)}"
    if wanted.count(-1) > 1 or min(wanted, default=0) < -1:
        raise Unsupported(text)
    target = list(wanted)
    for axis, extent in enumerate(target):
        if extent == 0 and not allow_zero:
            if axis >= len(shape):
                raise Unsupported(text)
            target[axis] = shape[axis]
    if -1 in target:
        rest = -math.prod(target)
        if rest <= 0 or math.prod(shape) % rest:
            raise Unsupported(text)
        target[target.index(-1)] = math.prod(shape) // rest
    if math.prod(target) != math.prod(shape):
        raise Unsupported(text)
    return tuple(target)


def squeezed(shape: Shape, axes: Sequence[int] | None) -> Shape:
    """`shape` without `axes`, or without all extents of 1."""
    if axes is None:
        return tuple(extent for extent in shape if extent != 1)
    dropped = normal_axes(axes, len(shape))
    if any(shape[axis] != 1 for axis in dropped):
        raise Unsupported(f"axes {list(axes)} of {list(shape)} are not all 1")
    return tuple(extent for axis, extent in enumerate(shape) if axis not in dropped)


def unsqueezed(shape: Shape, axes: Sequence[int]) -> Shape:
    """`shape` with extents of 1 at `axes` of the result."""
    if len(axes) > MAX_AXES:
        raise Unsupported(f"adds {len(axes)} axes; up to {MAX_AXES} are supported")
    added = normal_axes(axes, len(shape) + len(axes))
    rest = iter(shape)
    return tuple(1 if axis in added else next(rest) for axis in range(len(shape) + len(axes)))


def broadcast(*shapes: Shape) -> Shape:
    """numpy's broadcasting rule."""
    rank = max(map(len, shapes), default=0)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    result = []
    for extents in zip(*padded, strict=True):
        stretched = {extent for extent in extents if extent != 1}
        if len(stretched) > 1:
            raise Unsupported(f"shapes {', '.join(str(list(shape)) for shape in shapes)} do not broadcast")
        result.append(stretched.pop() if stretched else 1)
    return tuple(result)


def slice_ranges(
    shape: Shape, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int] | None, steps: Sequence[int] | None
) -> tuple[range, ...]:
    """For each axis of `shape` the indices that ONNX `Slice` takes."""
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise Unsupported("starts, ends, axes and steps do not fit one another")
    normal_axes(axes, len(shape))
    ranges = [range(extent) for extent in shape]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        ranges[axis] = range(*slice(start, end, step).indices(shape[axis]))
    return tuple(ranges)


def split_sizes(extent: int, parts: int, sizes: Sequence[int] | None) -> tuple[int, ...]:
    """The extents of the results of ONNX `Split`; without `sizes`, equal ones and a smaller last one."""
    if sizes is None:
        size = -(-extent // parts) if parts else 0
        sizes = [min(size, extent - i * size) for i in range(parts)]
    if len(sizes) != parts or min(sizes, default=0) < 0 or sum(sizes) != extent:
        raise Unsupported(f"{extent} cannot be split into {list(sizes)}")
    return tuple(sizes)


@dataclass(frozen=True)
class Windows:
    """Sliding windows over H and W; one spatial axis is W, with H = 1. `pads` is (top, left, bottom, right)."""

    size: Pair
    kernel: Pair
    strides: Pair
    dilations: Pair
    pads: tuple[int, int, int, int]

    def with_ceil(self) -> tuple[int, int, int, int]:
        """`pads` grown at the end, so that the last window that starts inside the input or its left padding counts."""
        extra = []
        for axis in (0, 1):
            low, high = self.pads[axis], self.pads[axis + 2]
            reach = self.dilations[axis] * (self.kernel[axis] - 1) + 1
            padded, stride = self.size[axis] + low + high, self.strides[axis]
            last = -(-(padded - reach) // stride) * stride
            if last >= self.size[axis] + low:
                last -= stride
            extra.append(max(last + reach - padded, 0))
        return (*self.pads[:2], self.pads[2] + extra[0], self.pads[3] + extra[1])


@dataclass(frozen=True)
class Sliding:
    """A window along one axis."""

    size: int
    kernel: int
    stride: int
    dilation: int
    low: int
    high: int

    @property
    def reach(self) -> int:
        return self.dilation * (self.kernel - 1) + 1

    @property
    def output(self) -> int:
        return (self.size + self.low + self.high - self.reach) // self.stride + 1

    def taps(self) -> np.ndarray:
        """Positions [output, kernel] that windows read; those in the padding lie outside of the input."""
        starts = np.arange(self.output) * self.stride - self.low
        return starts[:, None] + np.arange(self.kernel) * self.dilation

    def with_ceil(self) -> Sliding:
        """Grown at the end, so that the last window that starts inside the input or its left padding counts."""
        padded = self.size + self.low + self.high
        last = -(-(padded - self.reach) // self.stride) * self.stride
        if last >= self.size + self.low:
            last -= self.stride
        return replace(self, high=self.high + max(last + self.reach - padded, 0))


def read_sliding(node: Node, size: Shape, kernel: Shape) -> list[Sliding]:
    """The same as `read_windows`, axis by axis, for any number of axes."""
    rank = len(size)
    strides = node.get_ints("strides", (1,) * rank)
    dilations = node.get_ints("dilations", (1,) * rank)
    for name, values in (("kernel", kernel), ("strides", strides), ("dilations", dilations)):
        if len(values) != rank or min(values, default=1) < 1:
            raise Unsupported(f"{name} {list(values)} must be {rank} positive integers")
    pads = _pads(node, size, kernel, strides, dilations)
    windows = [Sliding(*item) for item in zip(size, kernel, strides, dilations, pads[:rank], pads[rank:], strict=True)]
    for window in windows:
        if window.reach > window.size + window.low + window.high:
            raise Unsupported(f"a window of {window.reach} elements does not fit into {window.size}")
    return windows


def read_windows(node: Node, size: Shape, kernel: Shape) -> Windows:
    """The window attributes of a convolution or pool over `size`, the spatial extents of its input."""
    rank = len(size)
    if rank not in (1, 2) or len(kernel) != rank:
        raise Unsupported(f"windows over {rank} axes; 1 and 2 are supported")
    strides = node.get_ints("strides", (1,) * rank)
    dilations = node.get_ints("dilations", (1,) * rank)
    for name, values in (("kernel", kernel), ("strides", strides), ("dilations", dilations)):
        if len(values) != rank or min(values) < 1:
            raise Unsupported(f"{name} {list(values)} must be {rank} positive integers")
    pads = _pads(node, size, kernel, strides, dilations)
    if rank == 1:
        return Windows((1, *size), (1, *kernel), (1, *strides), (1, *dilations), (0, pads[0], 0, pads[1]))
    return Windows(size, kernel, strides, dilations, pads)


def _pads(node: Node, size: Shape, kernel: Shape, strides: Shape, dilations: Shape) -> tuple[int, ...]:
    mode = node.get_str("auto_pad", "NOTSET")
    if mode == "VALID":
        return (0,) * (2 * len(size))
    if mode == "NOTSET":
        pads = node.get_ints("pads", (0,) * (2 * len(size)))
        if len(pads) != 2 * len(size) or min(pads) < 0:
            raise Unsupported(f"pads {list(pads)} must be {2 * len(size)} integers that are not negative")
        return pads
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise Unsupported(f"auto_pad `{mode}` is unknown")
    low, high = [], []
    for extent, k, stride, dilation in zip(size, kernel, strides, dilations, strict=True):
        total = max((-(-extent // stride) - 1) * stride + dilation * (k - 1) + 1 - extent, 0)
        small, large = total // 2, total - total // 2
        low.append(small if mode == "SAME_UPPER" else large)
        high.append(large if mode == "SAME_UPPER" else small)
    return (*low, *high)
