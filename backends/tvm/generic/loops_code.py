"""The few statements that generic kernels are made of: loop nests, guards and scalar variables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from edgec.backends.tvm._tvm import Expr, tirx
from edgec.backends.tvm.builder import Index, local, number, serial, when
from edgec.graph.types import DType


@contextmanager
def loops(*extents: int) -> Iterator[list[Index]]:
    """A loop nest, outermost first; yields one index per extent."""
    with ExitStack() as stack:
        yield [stack.enter_context(serial(0, n)) for n in extents]


Range = tuple[Index, Index]  # first, behind the last; empty where they cross


@contextmanager
def loops_over(*ranges: Range) -> Iterator[list[Index]]:
    """The same over ranges, which may depend on indices outside the nest."""
    with ExitStack() as stack:
        yield [stack.enter_context(serial(start, stop)) for start, stop in ranges]


@contextmanager
def where(conditions: list[Expr]) -> Iterator[None]:
    """Statements done only where all of `conditions` hold; no conditions, no test."""
    if not conditions:
        yield
        return
    with when(tirx.all(*conditions)):
        yield


def inside(i: Index, low: int, high: int, extent: int) -> list[Expr]:
    """What must be tested for 0 <= i < extent, when low <= i <= high is known."""
    return ([i >= 0] if low < 0 else []) + ([i < extent] if high >= extent else [])


class Variable:
    """One scalar that a kernel changes as it goes."""

    def __init__(self, initial: Expr | float, dtype: DType = DType.F32):
        self._cell = local(1, dtype)
        self._dtype = dtype
        self.set(initial)

    @property
    def value(self) -> Expr:
        return self._cell.load(0)

    def set(self, value: Expr | float) -> None:
        self._cell.store(0, number(value, self._dtype) if isinstance(value, int | float) else value)

    def add(self, term: Expr) -> None:
        self.set(self.value + term)
