"""What a frontend lends to code that serves all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgec.graph.ir import Value
from edgec.graph.ops.cast import Cast
from edgec.graph.ops.concat import Concat
from edgec.graph.ops.slice import Slice
from edgec.graph.types import DType

_MAX_JOINED = 16  # operands of one concatenation: a kernel's arguments are limited


@dataclass(frozen=True)
class Writer:
    """`emit(op, *operands)` makes a node with one result, `constant(array)` a leaf; both know what they stand for."""

    emit: Callable[..., Value]
    constant: Callable[[np.ndarray], Value]

    def number(self, number: float, like: Value) -> Value:
        """A scalar constant in the dtype of `like`."""
        return self.constant(np.array(number, like.type.dtype.numpy))

    def cast(self, x: Value, dtype: DType) -> Value:
        return x if x.type.dtype is dtype else self.emit(Cast(dtype.value), x)

    def join(self, parts: Sequence[Value], axis: int) -> Value:
        """`parts` one after the other along `axis`; many are joined in several steps."""
        while len(parts) > _MAX_JOINED:
            blocks = [parts[start : start + _MAX_JOINED] for start in range(0, len(parts), _MAX_JOINED)]
            parts = [self.join(block, axis) for block in blocks]
        return self.emit(Concat(axis), *parts) if len(parts) > 1 else parts[0]

    def part(self, x: Value, axis: int, count: int) -> list[Value]:
        """`x` cut into `count` equal parts along `axis`. Many are cut in two steps: then kernels of equal blocks serve
        for all of them.
        """
        size = x.type.shape[axis] // count
        if count <= _MAX_JOINED:
            return [self.emit(Slice.along(axis, i * size, (i + 1) * size, x.type), x) for i in range(count)]
        block = max(_MAX_JOINED, -(-count // _MAX_JOINED))
        parts = []
        for start in range(0, count, block):
            stop = min(start + block, count)
            cut = self.emit(Slice.along(axis, start * size, stop * size, x.type), x)
            parts += self.part(cut, axis, stop - start)
        return parts
