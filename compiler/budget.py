"""`memory_budget`: which chains run in strips, and which values of the training step are computed twice, to keep to it.

The budget counts the arena of `train`, states and the RAM copies of trained parameters; without training, the arena of
`infer`. Where the peak lies in chains that can run in strips, they do (`tile_search.py`): that costs a few percent of
their multiply-adds. What a step keeps for its backward part is given up next, in order of bytes per multiply-add that
it takes to compute it again: norms and activations first, depthwise convolutions, convolutions of few channels;
products of many channels last. A run of values that come back one from another is alive as a whole when its backward
part begins, so no run is longer than a limit, which leaves checkpoints between segments (Chen et al.,
arXiv:1604.06174). The limit falls until a plan fits, and then the shortest beginning of that order is taken whose plan,
made by all passes, still does. The other programs of the artifact share the arena: they are tiled until they fit too,
as far as that can be had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from edgec.backends.base import Backend
from edgec.compiler.memory.lifetimes import lifetimes, live_bytes
from edgec.compiler.passbase import Level, Options, Phase, Trace, run_pipeline
from edgec.compiler.pipeline import SCHEDULE_LEVEL, SCHEDULE_PASSES
from edgec.compiler.recompute_candidates import RecomputeCandidates
from edgec.compiler.schedule import TargetSchedules
from edgec.compiler.tile_search import choose_tilings, least_room, untiled_peak
from edgec.compiler.tiling import Tiling
from edgec.graph.errors import UserError
from edgec.graph.ir import Module, Role

# Parts of all kept bytes that one run may have, and of the order that is tried under each.
LIMITS = (1, 3 / 4, 1 / 2, 3 / 8, 1 / 4, 3 / 16, 1 / 8, 3 / 32, 1 / 16)
PARTS = {1: (1 / 4, 1 / 2, 3 / 4, 1)}  # without a limit, giving up everything gains nothing
MARGINS = (1, 0.95, 0.9, 0.8)  # of the room that chains are chosen for: their plan is only known afterwards
PROMISING = 4  # plans of which the smallest is sought: those with the least that no chain covers
ROOMIER = 1.1  # than what chains are expected to need: with the margins, from a tenth more to an eighth less
REFINED = 4  # times that the smallest plan is asked to be a byte smaller
SHOWN = 8  # rows of what makes up the smallest plan

_NEEDS = {"train": "training", "infer": "the model"}

# Plans that are only measured; the one that is taken is made again and verified.
_UNVERIFIED: Level[TargetSchedules] = Level(verify=lambda subject, facts: None, text=SCHEDULE_LEVEL.text)


@dataclass(frozen=True)
class Savings:
    """What passes shall do for a budget: values of `train` to compute again, and chains of each program to tile."""

    again: frozenset[str] = frozenset()
    tilings: Mapping[str, tuple[Tiling, ...]] = field(default_factory=dict)

    def with_tilings(self, program: str, tilings: list[Tiling]) -> Savings:
        return replace(self, tilings={**self.tilings, program: tuple(tilings)})


def schedule_target(module: Module, backend: Backend, options: Options, trace: Trace) -> TargetSchedules | None:
    """All programs of `module` for one target, planned, within the memory budget if there is one.

    None where `trace` ends the run before the plan. UserError E0405 where the budget cannot be met.
    """
    savings = Savings()
    if options.budget is not None and trace.wants(Phase.OPTIMISE):
        savings = fit_budget(module, backend, options, options.budget, trace.observe)
    schedules = TargetSchedules.of(module, backend, savings.again, savings.tilings)
    complete = run_pipeline(SCHEDULE_PASSES, schedules, options, SCHEDULE_LEVEL, trace)
    return schedules if complete else None


def counted_bytes(schedules: TargetSchedules) -> int:
    """What a memory budget counts of a planned artifact for one target."""
    arena = schedules.programs[_counted(schedules.programs)].plan.arena_bytes
    return arena + sum(count for _, count in _outside_arena(schedules))


def planned_within(module: Module, backend: Backend, options: Options, budget: int) -> TargetSchedules | None:
    """The plan that `fit_budget` finds for `budget`; None where none of its searches but the last, which is for the
    smallest plan of all, finds one.
    """
    return _Fit(module, backend, options, budget).first()


def _counted(programs: Mapping) -> str:
    return "train" if "train" in programs else "infer"


def fit_budget(
    module: Module,
    backend: Backend,
    options: Options,
    budget: int,
    observe: Callable[[str], None] | None = None,
) -> Savings:
    """Tilings and values to compute again, few multiply-adds' worth, so that the plan fits into `budget`.

    `observe` is told of every plan that is tried, with the bytes of the smallest so far.
    UserError E0405 with the smallest figure that was reached, and what makes it up.
    """
    return _Fit(module, backend, options, budget, observe).run()


Planned = tuple[Savings, TargetSchedules]


class _Fit:
    """One search. `seen` are the plans without tilings that were made on the way, which do not depend on the budget
    unless one of them leads to a plan that fits.
    """

    def __init__(
        self,
        module: Module,
        backend: Backend,
        options: Options,
        budget: int,
        observe: Callable[[str], None] | None = None,
    ):
        self.module, self.backend, self.options, self.budget = module, backend, options, budget
        self.observe, self.tried, self.smallest = observe, 0, 0
        self.program = _counted(module.programs)
        self.tiles = "tile_chains" not in options.skip
        self.seen: list[Planned] = []

    def run(self) -> Savings:
        savings = self._fitting(Savings()) or self._recomputing() or self._least()
        for name in self.module.programs:
            if name != self.program and self.tiles:
                savings = self._tile_other(savings, name)
        return savings

    def first(self) -> TargetSchedules | None:
        """The first plan within the budget."""
        savings = self._fitting(Savings()) or self._recomputing()
        return None if savings is None else self._planned(savings)

    def _planned(self, savings: Savings) -> TargetSchedules:
        schedules = TargetSchedules.of(self.module, self.backend, savings.again, savings.tilings)
        run_pipeline(SCHEDULE_PASSES, schedules, self.options, _UNVERIFIED, Trace(stop_after=Phase.PLAN))
        self.tried += 1
        self.smallest = min(self.smallest or counted_bytes(schedules), counted_bytes(schedules))
        if self.observe is not None:
            least, budget = (f"{count / 1e6:,.2f}" for count in (self.smallest, self.budget))
            self.observe(f"memory budget: plan {self.tried}, {least} of {budget} MB")
        return schedules

    def _fitting(self, savings: Savings) -> Savings | None:
        """`savings`, with chains tiled where that is needed; None where the plan does not fit all the same."""
        schedules = self._planned(savings)
        self.seen.append((savings, schedules))
        if counted_bytes(schedules) <= self.budget:
            return savings
        tiled = self._tiled(savings, schedules, self.budget)
        return None if tiled is None else tiled[0]

    def _tiled(
        self, savings: Savings, schedules: TargetSchedules, budget: int
    ) -> tuple[Savings, TargetSchedules] | None:
        """What was planned without tilings, with some that make it fit into `budget`; None where none do."""
        schedule = schedules.programs[self.program]
        if not self.tiles or self._untiled(schedules) > budget:
            return None
        room = budget - (counted_bytes(schedules) - schedule.plan.arena_bytes)
        for tiled in self._tilings(savings, schedules, self.program, room):
            plan = self._planned(tiled)
            if counted_bytes(plan) <= budget:
                return tiled, plan
        return None

    def _tilings(self, savings: Savings, schedules: TargetSchedules, program: str, room: int) -> Iterator[Savings]:
        """`savings` with chains of a program tiled for `room` bytes of arena, and for a little less."""
        last: list[Tiling] = []
        for margin in MARGINS:
            tilings = choose_tilings(schedules.programs[program], int(room * margin))
            if tilings != last:
                yield savings.with_tilings(program, tilings)
            last = tilings

    def _recomputing(self) -> Savings | None:
        if self.program != "train" or "recompute_activations" in self.options.skip:
            return None
        order = RecomputeCandidates(self.module.programs["train"])
        for limit in LIMITS:
            values = order.below(int(order.total * limit))
            too_few = 0
            for count in (round(len(values) * part) for part in PARTS.get(limit, (1,))):
                found = self._fitting(Savings(order.closure(values[:count])))
                if found is None:
                    too_few = count
                    continue
                while count - too_few > 1:
                    middle = (count + too_few) // 2
                    fewer = self._fitting(Savings(order.closure(values[:middle])))
                    if fewer is None:
                        too_few = middle
                    else:
                        count, found = middle, fewer
                return found
        return None

    def _least(self) -> Savings:
        """The smallest plan that tilings make of what was seen, if it fits after all; else E0405.

        It depends on what was seen alone, so the figure of the error is a budget that can be met.
        """
        savings, least = best = min(self.seen, key=lambda one: counted_bytes(one[1]))
        for plain in sorted(self.seen, key=lambda one: self._untiled(one[1]))[:PROMISING]:
            if not self.tiles or self._untiled(plain[1]) >= counted_bytes(least):
                break
            room = least_room(plain[1].programs[self.program])
            for tiled in self._tilings(*plain, self.program, int(room * ROOMIER)):
                plan = self._planned(tiled)
                if counted_bytes(plan) < counted_bytes(least):
                    savings, least, best = tiled, plan, plain
        for _ in range(REFINED):
            found = self._tiled(*best, counted_bytes(least) - 1)
            if found is None:
                break
            savings, least = found
        if counted_bytes(least) <= self.budget:
            return savings
        raise _unmeetable(least, self.budget, self.program)

    def _untiled(self, schedules: TargetSchedules) -> int:
        """What tilings cannot make less, as a budget counts."""
        schedule = schedules.programs[self.program]
        return untiled_peak(schedule) + counted_bytes(schedules) - schedule.plan.arena_bytes

    def _tile_other(self, savings: Savings, program: str) -> Savings:
        """Another program of the artifact, whose arena is the same memory: tiled to be no larger than the counted one
        may be, or the smallest of what was tried.
        """
        schedules = self._planned(savings)
        schedule = schedules.programs[program]
        room = self.budget - (counted_bytes(schedules) - schedules.programs[self.program].plan.arena_bytes)
        best, least = savings, schedule.plan.arena_bytes
        if least <= room:
            return savings
        for tiled in self._tilings(savings, schedules, program, room):
            arena = self._planned(tiled).programs[program].plan.arena_bytes
            if arena < least:
                best, least = tiled, arena
            if least <= room:
                break
        return best


def _outside_arena(schedules: TargetSchedules) -> list[tuple[str, int]]:
    """States, and parameters that some program updates: name and bytes."""
    leaves: dict[str, int] = {}
    for schedule in schedules.programs.values():
        for leaf in schedule.graph.by_role(Role.STATE):
            leaves[leaf.name] = leaf.type.bytes
        for leaf in schedule.graph.updates:
            leaves[leaf.name] = leaf.type.bytes
    return list(leaves.items())


def _unmeetable(schedules: TargetSchedules, budget: int, program: str) -> UserError:
    """E0405 for the smallest plan that was found: the largest of what is alive at its peak, and what is outside."""
    schedule = schedules.programs[program]
    scratch = {
        step: sum(workspace.bytes for workspace in schedule.lowerings[group].workspaces)
        for step, group in enumerate(schedule.groups)
    }
    alive = lifetimes(schedule)
    live = live_bytes(alive, len(schedule.groups), scratch)
    peak = live.index(max(live))
    rows = [(value.name, value.type.bytes) for value, life in alive.items() if life.start <= peak <= life.end]
    if scratch[peak]:
        rows.append((f"workspace of {schedule.groups[peak].anchor.op.name}", scratch[peak]))
    rows += [(f"{name} (trained, or a state)", count) for name, count in _outside_arena(schedules)]
    rows.sort(key=lambda row: (-row[1], row[0]))
    listed = "".join(f"\n  {count:>12,} {name}" for name, count in rows[:SHOWN])
    rest = rows[SHOWN:]
    if rest:
        listed += f"\n  {sum(count for _, count in rest):>12,} in {len(rest)} smaller ones"
    return UserError(
        "E0405",
        f"{_NEEDS[program]} needs at least {counted_bytes(schedules):,} bytes, and the budget is {budget:,}:{listed}",
        where=f"target {schedules.backend.target.name}",
        hint="train fewer layers with `update`, or take a smaller train batch" if program == "train" else None,
    )
