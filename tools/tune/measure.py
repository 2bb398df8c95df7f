"""One class of problems measured: its ways as code in this process, raced on the groups that pose it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from edgec.backends.base import Lowering, Target
from edgec.backends.tvm.backend import TvmBackend
from edgec.backends.tvm.tuning.choice import Chooser, Record
from edgec.backends.tvm.tuning.machine import machine_of
from edgec.tools.tune.groups import Forced, Member, ProblemClass
from edgec.tools.tune.native import Memory, NativeCode, runner
from edgec.tools.tune.race import Outcome, race

_MOST_MEMBERS = 3  # groups that stand for a class: those that run most often


def measure(one: ProblemClass, backend: TvmBackend, tuning: Chooser, most: int) -> tuple[Record, Outcome]:
    """The best of at most `most` ways; all other problems are solved as `tuning` says."""
    candidates = one.candidates(backend.target)
    outcome, winner = _race(one, candidates, backend, tuning, most)
    if winner is None:
        return Record(None), outcome
    # The best of many owes a part of its lead to luck. Alone with the usual way, its code and operands elsewhere, it
    # must win again, and that is what it gains.
    return confirm(one, winner, backend, tuning)


def confirm(one: ProblemClass, parameters: Any, backend: TvmBackend, tuning: Chooser) -> tuple[Record, Outcome]:
    """Whether `parameters` beat the model's choice."""
    outcome, winner = _race(one, [one.candidates(backend.target)[0], parameters], backend, tuning, 2)
    return Record(None) if winner is None else Record(vars(winner), outcome.gain), outcome


def _race(
    one: ProblemClass, candidates: Iterable[Any], backend: TvmBackend, tuning: Chooser, most: int
) -> tuple[Outcome, Any]:
    """The outcome, and the parameters that won; None where the first did."""
    members = sorted(one.members, key=lambda member: -member.count)[:_MOST_MEMBERS]
    ways = _distinct(one.key, members, candidates, backend.target, tuning, most)
    outcome = run_ways(list(ways.values()), members, backend) if len(ways) > 1 else Outcome(0, 1.0, 0.0)
    return outcome, list(ways)[outcome.winner] if outcome.winner else None


def run_ways(ways: Sequence[Sequence[Lowering]], members: Sequence[Member], backend: TvmBackend) -> Outcome:
    """Compiled and raced. A way is a lowering of each member."""
    code = NativeCode(backend.build([call.spec for way in ways for lowering in way for call in lowering.calls]))
    memories = [Memory(member.alias) for member in members]
    runs = [runner(code, list(zip(memories, way, strict=True))) for way in ways]
    # What ran last must not find its operands where the one before left them.
    swept = np.zeros(2 * machine_of(backend.target).far, np.uint8)
    return race(runs, lambda: swept.__iadd__(1))


def _distinct(
    key: str, members: Sequence[Member], candidates: Iterable[Any], target: Target, tuning: Chooser, most: int
) -> dict[Any, list[Lowering]]:
    """Lowerings of the first `most` candidates that make kernels of their own."""
    ways: dict[Any, list[Lowering]] = {}
    seen = set()
    for candidate in candidates:
        lowerings = [member.lower(target, Forced(key, candidate, tuning)) for member in members]
        specs = tuple(call.spec for lowering in lowerings for call in lowering.calls)
        if specs not in seen and len(ways) < most:
            seen.add(specs)
            ways[candidate] = lowerings
    return ways
