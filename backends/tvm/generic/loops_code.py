"""The few statements that generic kernels are made of: loop nests, guards and scalar variables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from edgec.backends.tvm._tvm import Expr, tirx
from edgec.backends.tvm.builder import Index, bind, local, number, serial, shared, synchronise, when
from edgec.backends.tvm.generic.tensor_code import unravel
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


@dataclass(frozen=True)
class Team:
    """The work items of a device that do one row together: `item` of them is this one; a power of two."""

    item: Expr
    items: int


_TEAM: ContextVar[Team | None] = ContextVar("team", default=None)


@contextmanager
def working_as(team: Team) -> Iterator[None]:
    """Code that is emitted here runs on every item of the team."""
    token = _TEAM.set(team)
    try:
        yield
    finally:
        _TEAM.reset(token)


def in_team() -> bool:
    return _TEAM.get() is not None


@contextmanager
def divided(*extents: int) -> Iterator[list[Index]]:
    """`loops` whose iterations do not depend on one another: the items of a team share them out."""
    team = _TEAM.get()
    if team is None:
        with loops(*extents) as index:
            yield index
        return
    total = math.prod(extents)
    with serial(0, -(-total // team.items)) as turn:
        position = turn * team.items + team.item
        with where([position < total] if total % team.items else []):
            yield unravel(bind(position), extents)


@contextmanager
def once() -> Iterator[None]:
    """Statements that one item of a team does for all."""
    team = _TEAM.get()
    with where([] if team is None else [team.item == 0]):
        yield


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

    def combined(self, combine: Callable[[Expr, Expr], Expr]) -> Expr:
        """The value of all items of a team, in one fixed order; every item of it must come by."""
        team = _TEAM.get()
        if team is None:
            return self.value
        cells = shared(team.items, self._dtype)
        cells.store(team.item, self.value)
        synchronise()
        half = team.items // 2
        while half:
            with when(team.item < half):
                cells.store(team.item, combine(cells.load(team.item), cells.load(team.item + half)))
            synchronise()
            half //= 2
        return bind(cells.load(0))

    @property
    def total(self) -> Expr:
        """The sum over all items of a team."""
        return self.combined(lambda a, b: a + b)
