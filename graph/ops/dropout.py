"""Dropout (https://jmlr.org/papers/v15/srivastava14a.html) by a counter-based generator.

Random bits are Threefry-2x32 of 20 rounds (https://doi.org/10.1145/2063384.2063405): a function of a key (seed, stream)
and a counter (step, block) in 32-bit additions, rotations and exclusive ors, so that every target and any number of
threads draw the same, in any order, and the backward pass draws it again instead of keeping a mask.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgec.graph.ops.base import ChannelRule, GradientBuilder, Op, Tolerance, type_error
from edgec.graph.ops.checks import require_float
from edgec.graph.types import DType, TensorType

if TYPE_CHECKING:
    from edgec.graph.ir import Value

ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
PARITY = 0x1BD11BDA
ROUNDS = 20
STEPS = 1 << 16  # 16 random bits decide on one element
DECISIONS = 4  # of one block of 64 bits


@dataclass(frozen=True)
class Dropout(Op):
    """x -> x; or x, seed i32[], step i32[] -> y = x / (1 - rate) where it is kept, and 0 with probability `rate`.

    The first form is that of models, and of inference. Elements that differ in the last `shared` axes alone are kept or
    dropped together (torch's Dropout2d). Decision i of n, in row-major order, is the 16-bit number i // q of block
    i % q with q = ceil(n / 4); `rate` is rounded to multiples of 2^-16. `stream` tells the dropouts of a model apart.
    """

    name: ClassVar[str] = "dropout"
    tolerance: ClassVar[Tolerance] = Tolerance.ROUNDING
    channel_rule: ClassVar[ChannelRule] = ChannelRule.BLOCK

    rate: float
    shared: int = 0
    stream: int = 0

    @property
    def threshold(self) -> int:
        """Elements whose number lies below it are dropped."""
        return round(self.rate * STEPS)

    @property
    def scale(self) -> float:
        return STEPS / (STEPS - self.threshold) if self.threshold < STEPS else 0.0

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        if len(inputs) not in (1, 3):
            raise type_error(self, f"takes x, or x, seed and step; {len(inputs)} given", *inputs)
        x, *state = inputs
        require_float(self, x)
        if any(value != TensorType(DType.I32, ()) for value in state):
            raise type_error(self, "seed and step are i32[]", *inputs)
        if not 0 <= self.rate <= 1:
            raise type_error(self, f"rate={self.rate} does not lie in [0, 1]", *inputs)
        if not 0 <= self.shared <= x.rank:
            raise type_error(self, f"{self.shared} shared axes of {x.rank}", *inputs)
        return (x,)

    def reference(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        x, *state = inputs
        if not state:
            return (x.copy(),)
        leading = x.shape[: x.ndim - self.shared]
        kept = numbers(math.prod(leading), *(int(value) for value in state), self.stream) >= self.threshold
        kept = kept.reshape(leading + (1,) * self.shared)
        return (np.where(kept, x * x.dtype.type(self.scale), x.dtype.type(0)),)

    def vjp(
        self,
        build: GradientBuilder,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
        gradients: tuple[Value | None, ...],
    ) -> tuple[Value | None, ...]:
        """The same decisions for dy: a dropout is its own gradient."""
        (_, *state), (dy,) = inputs, gradients
        return (build.emit(self, dy, *state), *(None for _ in state))


def blocks(count: int) -> int:
    """How many blocks of 64 bits make `count` decisions."""
    return -(-count // DECISIONS)


def numbers(count: int, seed: int, step: int, stream: int) -> np.ndarray:
    """`count` random numbers in [0, 2^16)."""
    quarter = blocks(count)
    low, high = threefry2x32((seed, stream), step, np.arange(quarter, dtype=np.uint32))
    parts = [low & 0xFFFF, low >> 16, high & 0xFFFF, high >> 16]
    return np.concatenate(parts)[:count].astype(np.int64)


def threefry2x32(key: tuple[int, int], first: int, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Random words of the counters (first, second[i]), as in the Random123 library."""
    words = [np.uint32(word & 0xFFFFFFFF) for word in key]
    words.append(words[0] ^ words[1] ^ np.uint32(PARITY))
    with np.errstate(over="ignore"):
        a = np.full_like(second, first & 0xFFFFFFFF) + words[0]
        b = second + words[1]
        for i in range(ROUNDS):
            a = a + b
            turn = np.uint32(ROTATIONS[i % 8])
            b = ((b << turn) | (b >> (np.uint32(32) - turn))) ^ a
            if i % 4 == 3:
                n = i // 4 + 1
                a = a + words[n % 3]
                b = b + words[(n + 1) % 3] + np.uint32(n)
    return a, b
