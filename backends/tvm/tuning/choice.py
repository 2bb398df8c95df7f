"""Who chooses: a record of what was measured where there is one, else the cost model. Loads no tvm."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from edgec.backends.base import Target
from edgec.backends.tvm.tuning.machine import machine_of
from edgec.backends.tvm.tuning.problem import Parameters, Problem

# An estimate within this factor of the least is as good: the earlier candidate wins, so that a model which is off by
# a little does not jump between choices.
_CLEARLY = 1.03


class Chooser(Protocol):
    def choose(self, problem: Problem[Parameters], target: Target) -> Parameters: ...


@dataclass(frozen=True)
class Record:
    """What was measured for a class of shapes: `parameters` by name, or None where nothing beat the model's choice.

    gain: time of the model's choice over that of `parameters`, at least 1.
    """

    parameters: Mapping[str, int | str] | None
    gain: float = 1.0


@dataclass(frozen=True, eq=False)
class Tuning:
    """Choices by `records`, each under the key that `class_of` gives. None: by the model alone."""

    records: Mapping[str, Record] = field(default_factory=dict)

    def choose(self, problem: Problem[Parameters], target: Target) -> Parameters:
        record = self.records.get(class_of(problem, target))
        if record is not None and record.parameters is not None:
            # What is legal is known here and nowhere else: a record of a neighbour in the class, or of a strange file,
            # that names anything else is passed over.
            for candidate in problem.candidates(target):
                if vars(candidate) == record.parameters:
                    return candidate
        return by_model(problem, target)


MODEL = Tuning()  # no records


def class_of(problem: Problem, target: Target) -> str:
    """`product f32 avx512 rows:64 depth:96 ...`: a class of problems on machines with one instruction set.

    Threads are not in it: what is chosen is what one task does. Tasks are cut by shapes alone (`tiling.py`), so that an
    artifact computes the same bits on any number of threads.
    """
    extents = " ".join(f"{name}:{extent}" for name, extent in problem.shape().items())
    return f"{problem.kind} f32 {machine_of(target).isa} {extents}"


def by_model(problem: Problem[Parameters], target: Target) -> Parameters:
    return ranked(problem, target)[0]


@functools.lru_cache(maxsize=4096)
def ranked(problem: Problem[Parameters], target: Target) -> tuple[Parameters, ...]:
    """All candidates, what the model would take first, then by estimated cycles."""
    candidates = problem.candidates(target)
    cycles = {candidate: problem.cycles(candidate, target) for candidate in candidates}
    least = min(cycles.values())
    first = next(candidate for candidate in candidates if cycles[candidate] <= _CLEARLY * least)
    rest = sorted((c for c in candidates if c is not first), key=cycles.__getitem__)
    return (first, *rest)
