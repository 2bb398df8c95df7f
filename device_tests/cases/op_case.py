"""What a case of one op is: the op and how its operands are drawn. The same data runs on every executor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from edgec.graph.ops.base import Op, Tolerance
from edgec.graph.types import DType, TensorType


@dataclass(frozen=True)
class Normal:
    """f32, standard normal times `scale`; with `ties`, rounded to halves so that equal values are common."""

    shape: tuple[int, ...]
    scale: float = 1.0
    ties: bool = False

    def draw(self, rng: np.random.Generator, drawn: Sequence[np.ndarray]) -> np.ndarray:
        x = np.asarray(rng.standard_normal(self.shape) * self.scale, np.float32)
        return np.asarray(np.round(x * 2) / 2, np.float32) if self.ties else x


@dataclass(frozen=True)
class Positive:
    """f32 in [0.5, 1.5): divisors, variances, learning rates."""

    shape: tuple[int, ...]

    def draw(self, rng: np.random.Generator, drawn: Sequence[np.ndarray]) -> np.ndarray:
        return np.asarray(rng.random(self.shape) + 0.5, np.float32)


@dataclass(frozen=True)
class Labels:
    """i64 class indices."""

    batch: int
    classes: int

    def draw(self, rng: np.random.Generator, drawn: Sequence[np.ndarray]) -> np.ndarray:
        return rng.integers(0, self.classes, self.batch, np.int64)


@dataclass(frozen=True)
class Probabilities:
    """f32 rows that add up to 1."""

    batch: int
    classes: int

    def draw(self, rng: np.random.Generator, drawn: Sequence[np.ndarray]) -> np.ndarray:
        return np.asarray(rng.dirichlet(np.ones(self.classes), self.batch), np.float32)


@dataclass(frozen=True)
class Integers:
    """Integers in [-100, 100) of any integer type."""

    dtype: DType
    shape: tuple[int, ...]

    def draw(self, rng: np.random.Generator, drawn: Sequence[np.ndarray]) -> np.ndarray:
        return np.asarray(rng.integers(-100, 100, self.shape), self.dtype.numpy)


@dataclass(frozen=True)
class Uniform:
    """Floats of any type in [low, high)."""

    shape: tuple[int, ...]
    low: float = -3.0
    high: float = 3.0
    dtype: DType = DType.F32

    def draw(self, rng: np.random.Generator, drawn: Sequence[np.ndarray]) -> np.ndarray:
        return np.asarray(rng.uniform(self.low, self.high, self.shape)).astype(self.dtype.numpy)


@dataclass(frozen=True)
class Small:
    """Whole numbers in 0..`bound`-1 of any type, bool included: equal values are common."""

    dtype: DType
    shape: tuple[int, ...]
    bound: int = 4

    def draw(self, rng: np.random.Generator, drawn: Sequence[np.ndarray]) -> np.ndarray:
        return np.asarray(rng.integers(0, self.bound, self.shape)).astype(self.dtype.numpy)


@dataclass(frozen=True)
class ResultOf:
    """Output `output` of `op` on earlier operands: what a gradient gets from the forward pass."""

    op: Op
    operands: tuple[int, ...]
    output: int = 0

    def draw(self, rng: np.random.Generator, drawn: Sequence[np.ndarray]) -> np.ndarray:
        return self.op.reference(*(drawn[i] for i in self.operands))[self.output]


Draw = Normal | Positive | Labels | Probabilities | Integers | Uniform | Small | ResultOf


@dataclass(frozen=True)
class OpCase:
    """One op on operands that are drawn in order."""

    name: str
    op: Op
    operands: tuple[Draw, ...]

    def arrays(self, seed: int = 0) -> list[np.ndarray]:
        """The operands; the same for the same seed."""
        rng = np.random.default_rng(seed)
        drawn: list[np.ndarray] = []
        for operand in self.operands:
            drawn.append(operand.draw(rng, drawn))
        return drawn

    @property
    def types(self) -> tuple[TensorType, ...]:
        return tuple(TensorType(DType.of(array.dtype), array.shape) for array in self.arrays())

    def __str__(self) -> str:
        return self.name


def case(name: str, op: Op, *operands: Draw) -> OpCase:
    return OpCase(f"{op.name}/{name}", op, operands)


def assert_agrees(op: Op, actual: np.ndarray, expected: np.ndarray) -> None:
    """Two results of one op agree as its `tolerance` says: equal, or up to rounding relative to the largest element."""
    assert actual.dtype == expected.dtype and actual.shape == expected.shape, (actual.dtype, actual.shape)
    if op.tolerance is Tolerance.EXACT:
        np.testing.assert_array_equal(actual, expected)
        return
    # Half floats are rounded once more: another f32 may fall on the neighbour.
    unit = float(ml_dtypes.finfo(expected.dtype).eps) if expected.dtype.itemsize == 2 else 0.0
    actual, expected = (array.astype(np.float64) for array in (actual, expected))
    scale = max(1.0, float(np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected))))
    tolerance = max(op.tolerance.value, unit)
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * scale)
