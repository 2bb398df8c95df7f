"""What compiled kernels, the plan and the runtime agree on: storage of tensors, the kernel convention, CPU features.

A kernel is a serial function `void k(void *p0, ..., void *pN, int32_t lo, int32_t hi)` that does tasks lo..hi-1. What a
task computes never depends on how tasks are handed to threads. It needs no symbol from anybody, keeps no state and
writes only through the pointers that its record declares writable.

On a device (`Arch.is_device`) a kernel is `void k(void *p0, ..., void *pN)` for one work item. A task is a work group,
of as many items as the kernel's record says; the rest holds for it as above.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np

MAX_KERNEL_ARGS = 24
MAX_DEVICE_ARGS = 64  # of a kernel for a device; OpenCL promises 1024 bytes of arguments, 16 for each pointer
MAX_RANK = 8  # of a tensor that an artifact names: inputs, outputs, parameters, states
MAX_NAME = 4095  # bytes of such a tensor's name: exporters join the names of all that they fused
BUFFER_ALIGNMENT = 64  # bytes; of every buffer in the arena, the parameters and the weights section


@dataclass(frozen=True)
class Storage:
    """Where the elements of a logical tensor lie in memory.

    `dims` is the logical shape, possibly with axes split (row-major, so that splitting moves nothing). `perm` is the
    order of `dims` in memory, outermost first. If `block` is not 0, the last permuted axis (extent n) is cut into
    panels of `block`; a panel holds all other axes and then its own columns, and the last panel may be narrower:

        offset(outer, i) = p * block * outer_size + outer * width(p) + (i - p * block),   p = i // block

    where `outer` is the row-major index over the other permuted axes, `outer_size` their product and `width(p)` is
    `min(block, n - p * block)`. Nothing is padded: storage has as many elements as the tensor.
    """

    dims: tuple[int, ...]
    perm: tuple[int, ...]
    block: int = 0

    @staticmethod
    def row_major(shape: tuple[int, ...]) -> Storage:
        return Storage(tuple(shape), tuple(range(len(shape))))

    @staticmethod
    def channels_last(shape: tuple[int, ...]) -> Storage:
        """NHWC for a rank-4 NCHW tensor."""
        n, c, h, w = shape
        return Storage((n, c, h, w), (0, 2, 3, 1))

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def is_row_major(self) -> bool:
        """Whether memory order is logical order; axes of extent 1 may stand anywhere."""
        if self.block and self.block < self.dims[self.perm[-1]] and self.size > self.dims[self.perm[-1]]:
            return False
        order = [axis for axis in self.perm if self.dims[axis] != 1]
        return order == sorted(order)

    def strides(self) -> tuple[int, ...]:
        """Elements between neighbours along each of `dims`, for storage without panels."""
        if self.block:
            raise ValueError("storage in panels has no strides")
        strides = [0] * len(self.dims)
        step = 1
        for axis in reversed(self.perm):
            strides[axis] = step
            step *= self.dims[axis]
        return tuple(strides)

    def pack(self, array: np.ndarray) -> np.ndarray:
        """A logical array as the flat sequence that memory holds."""
        moved = np.ascontiguousarray(array.reshape(self.dims).transpose(self.perm))
        if not self.block:
            return moved.reshape(-1)
        table = moved.reshape(-1, moved.shape[-1]) if moved.size else moved.reshape(0, 0)
        flat, start = np.empty(moved.size, moved.dtype), 0
        for i in range(0, table.shape[1], self.block):
            panel = table[:, i : i + self.block]
            flat[start : start + panel.size].reshape(panel.shape)[:] = panel
            start += panel.size
        return flat

    def unpack(self, flat: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The inverse of `pack`: a new logical array of `shape`."""
        moved_dims = [self.dims[axis] for axis in self.perm]
        if self.block and self.size:
            columns = moved_dims[-1]
            table = np.empty((self.size // columns, columns), flat.dtype)
            start = 0
            for i in range(0, columns, self.block):
                width = min(self.block, columns - i)
                stop = start + table.shape[0] * width
                table[:, i : i + width] = flat[start:stop].reshape(-1, width)
                start = stop
            flat = table
        inverse = np.argsort(self.perm) if self.perm else ()
        return np.ascontiguousarray(flat.reshape(moved_dims).transpose(inverse)).reshape(shape)


class Arch(enum.IntEnum):
    """Machine that a variant's code needs."""

    X86_64 = 1
    AARCH64 = 2
    ARM = 3  # 32-bit, M profile
    RISCV32 = 4
    PORTABLE = 5  # C source, compiled by whoever links it
    CUDA = 6  # a cubin, for a GPU behind any host processor
    OPENCL = 7  # OpenCL C source, built where it runs

    @property
    def is_device(self) -> bool:
        """Whether kernels run beside the host, in memory of their own."""
        return self in (Arch.CUDA, Arch.OPENCL)


class Feature(enum.IntFlag):
    """CPU features that a variant may require; the runtime refuses the variant where one is missing."""

    AVX2 = 1 << 0
    FMA = 1 << 1
    AVX512F = 1 << 2
    AVX512BW = 1 << 3
    AVX512DQ = 1 << 4
    AVX512VL = 1 << 5
    AVX512VNNI = 1 << 6
    DOTPROD = 1 << 16  # aarch64: asimddp
    FP16 = 1 << 17  # aarch64: asimdhp
    I8MM = 1 << 18
    SVE = 1 << 19


class Access(enum.IntEnum):
    """What a kernel does with an argument."""

    READ = 1
    WRITE = 2
    READ_WRITE = 3


@dataclass(frozen=True)
class Factor:
    """An operand of a `Product`: argument `argument` of the kernel, a matrix in rows of `leading` elements, the next
    product's `stride` elements further (0: the same matrix). `transposed`: its rows are the product's depth (left) or
    columns (right).
    """

    argument: int
    leading: int
    stride: int = 0
    transposed: bool = False


@dataclass(frozen=True)
class Product:
    """All that a kernel of a device does, where it is left[rows, depth] @ right[depth, columns] in f32, `batch` times:
    a library could do it too. The results lie behind one another in argument `result`; what it holds behind them is 0.
    `tf32`: operands may be rounded to 10 bits of mantissa.
    """

    batch: int
    rows: int
    columns: int
    depth: int
    left: Factor
    right: Factor
    result: int
    tf32: bool = False
