"""`memory_budget`: which values of the training step are computed twice so that it fits.

The budget counts the arena of `train`, states and the RAM copies of trained parameters. What the forward part keeps is
given up in order of bytes per multiply-add that it takes to compute it again: norms and activations first, depthwise
convolutions, convolutions of few channels; products of many channels last. A run of values that come back one from
another is alive as a whole when its backward part begins, so no run is longer than a limit, which leaves checkpoints
between segments (Chen et al., arXiv:1604.06174). The limit falls until a plan fits, and then the shortest beginning of
that order is taken whose plan, made by all passes, still does.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgec.backends.base import Backend
from edgec.compiler.memory.lifetimes import lifetimes, live_bytes
from edgec.compiler.passbase import Level, Options, Phase, Trace, run_pipeline
from edgec.compiler.pipeline import SCHEDULE_LEVEL, SCHEDULE_PASSES
from edgec.compiler.recompute import forward_nodes, kept_values
from edgec.compiler.schedule import TargetSchedules
from edgec.graph.errors import UserError
from edgec.graph.ir import Graph, Module, Node, Role, Value
from edgec.graph.ops.inside_bits import InsideBits

# Parts of all kept bytes that one run may have, and of the order that is tried under each.
LIMITS = (1, 3 / 4, 1 / 2, 3 / 8, 1 / 4, 3 / 16, 1 / 8, 3 / 32, 1 / 16)
PARTS = {1: (1 / 4, 1 / 2, 3 / 4, 1)}  # without a limit, giving up everything gains nothing
ELEMENTWISE = 16  # multiply-adds that moving four bytes through memory is worth
SHOWN = 8  # rows of what makes up the smallest plan

# Plans that are only measured; the one that is taken is made again and verified.
_UNVERIFIED: Level[TargetSchedules] = Level(verify=lambda subject, facts: None, text=SCHEDULE_LEVEL.text)


def schedule_target(module: Module, backend: Backend, options: Options, trace: Trace) -> TargetSchedules | None:
    """All programs of `module` for one target, planned, within the memory budget if there is one.

    None where `trace` ends the run before the plan. UserError E0405 where the budget cannot be met.
    """
    again: frozenset[str] = frozenset()
    if options.train is not None and options.train.memory_budget is not None and trace.wants(Phase.OPTIMISE):
        again = fit_budget(module, backend, options, options.train.memory_budget)
    schedules = TargetSchedules.of(module, backend, again)
    complete = run_pipeline(SCHEDULE_PASSES, schedules, options, SCHEDULE_LEVEL, trace)
    return schedules if complete else None


def training_bytes(schedules: TargetSchedules) -> int:
    """What a memory budget counts of a planned artifact for one target."""
    train = schedules.programs["train"]
    return train.plan.arena_bytes + sum(count for _, count in _outside_arena(schedules))


def fit_budget(module: Module, backend: Backend, options: Options, budget: int) -> frozenset[str]:
    """Names of the values of `train` to compute again, few multiply-adds' worth, so that the plan fits into `budget`.

    UserError E0405 with the smallest figure that was reached, and what makes it up.
    """

    def planned(again: frozenset[str]) -> TargetSchedules:
        schedules = TargetSchedules.of(module, backend, again)
        run_pipeline(SCHEDULE_PASSES, schedules, options, _UNVERIFIED, Trace(stop_after=Phase.PLAN))
        return schedules

    nothing: frozenset[str] = frozenset()
    best = planned(nothing)
    if training_bytes(best) <= budget:
        return nothing
    order = _Candidates(module.programs["train"])
    for limit in LIMITS:
        values = order.below(int(order.total * limit))
        too_few = 0
        for count in (round(len(values) * part) for part in PARTS.get(limit, (1,))):
            plan = planned(order.closure(values[:count]))
            best = min(best, plan, key=training_bytes)
            if training_bytes(plan) > budget:
                too_few = count
                continue
            while count - too_few > 1:
                middle = (count + too_few) // 2
                fits = training_bytes(planned(order.closure(values[:middle]))) <= budget
                count, too_few = (middle, too_few) if fits else (count, middle)
            return order.closure(values[:count])
    raise _unmeetable(best, budget)


@dataclass(frozen=True)
class _Cost:
    """What it takes to have a value again: nodes that nobody keeps the results of, and kept values they read."""

    nodes: frozenset[Node]
    reads: frozenset[Value]

    @property
    def macs(self) -> int:
        total = 0
        for node in self.nodes:
            cost = node.op.cost(tuple(v.type for v in node.inputs), tuple(v.type for v in node.outputs))
            total += cost.macs + ELEMENTWISE * cost.bytes // 4
        return total


class _Candidates:
    """The kept values of a train program, those that give most bytes for a multiply-add first."""

    def __init__(self, graph: Graph):
        forward = forward_nodes(graph)
        results = set(graph.results())
        kept = (value for value in kept_values(graph, forward) if value not in results)
        self._kept = [value for value in kept if not isinstance(value.producer.op, InsideBits)]
        costs = self._costs(graph, forward)
        self._costs_of = {value: costs[value] for value in self._kept}
        place = {value: index for index, value in enumerate(self._kept)}
        gain = {value: value.type.bytes / max(costs[value].macs, 1) for value in self._kept}
        self._order = sorted(self._kept, key=lambda value: (-gain[value], place[value]))
        self.total = sum(value.type.bytes for value in self._kept)

    def _costs(self, graph: Graph, forward: set[Node]) -> dict[Value, _Cost]:
        kept, costs = set(self._kept), {}
        for node in (node for node in graph.nodes if node in forward):
            nodes, reads = {node}, set()
            for operand in node.inputs:
                if operand in kept:
                    reads.add(operand)
                elif operand.producer is not None:
                    nodes |= costs[operand].nodes
                    reads |= costs[operand].reads
            costs.update(dict.fromkeys(node.outputs, _Cost(frozenset(nodes), frozenset(reads))))
        return costs

    def below(self, limit: int) -> list[Value]:
        """The values in order, without those that would join others to a run of more than `limit` bytes."""
        run = {value: value for value in self._kept}  # disjoint sets: towards a representative
        size: dict[Value, int] = {}
        readers: dict[Value, list[Value]] = {}
        for value, cost in self._costs_of.items():
            for operand in cost.reads:
                readers.setdefault(operand, []).append(value)

        def find(value: Value) -> Value:
            while run[value] is not value:
                value = run[value]
            return value

        chosen: list[Value] = []
        for value in self._order:
            near = (*self._costs_of[value].reads, *readers.get(value, ()))
            runs = {find(other) for other in near if other in size}
            joined = value.type.bytes + sum(size[other] for other in runs)
            if joined > limit:
                continue
            for other in runs:
                run[other] = value
            for member in (value, *runs):
                size.setdefault(member, 0)
            size[value] = joined
            chosen.append(value)
        return chosen

    def closure(self, values: list[Value]) -> frozenset[str]:
        """Names of `values` and of all that nobody keeps on the way to them."""
        nodes = {node for value in values for node in self._costs_of[value].nodes}
        kept = set(self._kept) - set(values)
        return frozenset(value.name for node in nodes for value in node.outputs if value not in kept)


def _outside_arena(schedules: TargetSchedules) -> list[tuple[str, int]]:
    """States, and parameters that some program updates: name and bytes."""
    leaves: dict[str, int] = {}
    for schedule in schedules.programs.values():
        for leaf in schedule.graph.by_role(Role.STATE):
            leaves[leaf.name] = leaf.type.bytes
        for leaf in schedule.graph.updates:
            leaves[leaf.name] = leaf.type.bytes
    return list(leaves.items())


def _unmeetable(schedules: TargetSchedules, budget: int) -> UserError:
    """E0405 for the smallest plan that was found: the largest of what is alive at its peak, and what is outside."""
    schedule = schedules.programs["train"]
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
        f"training needs at least {training_bytes(schedules):,} bytes, and the budget is {budget:,}:{listed}",
        where=f"target {schedules.backend.target.name}",
        hint="train fewer layers with `update`, or take a smaller train batch",
    )
