"""What a program asks to be chosen: classes of problems, and the groups of nodes in which they turn up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgec.backends.base import Group, KernelCall, Lowering, Target
from edgec.backends.tvm.strategies import lower_group
from edgec.backends.tvm.tuning.choice import Chooser, class_of, ranked
from edgec.backends.tvm.tuning.problem import Problem
from edgec.compiler.passes.lower_groups import shared_operands
from edgec.compiler.schedule import TargetSchedules
from edgec.graph.ir import Value
from edgec.runtime.abi import Storage


@dataclass(eq=False)
class Member:
    """A group as it is lowered, and how often groups like it run."""

    group: Group
    storage: Mapping[Value, Storage]
    alias: Mapping[Value, Value]
    count: int = 1

    def lower(self, target: Target, tuning: Chooser) -> Lowering:
        return lower_group(self.group, self.storage, self.alias, target, tuning)


@dataclass(eq=False)
class ProblemClass:
    """One key of the database: its `problems`, each once, and the groups that have them."""

    key: str
    problems: dict[Problem, None] = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)
    cycles: float = 0.0  # estimated, of all runs of all members

    def candidates(self, target: Target) -> list[Any]:
        """What is legal for all its problems, the model's choice for the first of them first."""
        first, *others = self.problems
        legal = [set(problem.candidates(target)) for problem in others]
        return [c for c in ranked(first, target) if all(c in candidates for candidates in legal)]


@dataclass
class Forced:
    """`parameters` for problems of the class `key`, whatever `other` says for the rest."""

    key: str
    parameters: Any
    other: Chooser

    def choose(self, problem: Problem, target: Target) -> Any:
        if class_of(problem, target) == self.key and self.parameters in problem.candidates(target):
            return self.parameters
        return self.other.choose(problem, target)


@dataclass
class _Asked:
    """Notes what it is asked for."""

    other: Chooser
    problems: list[Problem] = field(default_factory=list)

    def choose(self, problem: Problem, target: Target) -> Any:
        self.problems.append(problem)
        return self.other.choose(problem, target)


def find_classes(schedules: TargetSchedules, tuning: Chooser) -> list[ProblemClass]:
    """Of all programs, the dearest class first. Groups of equal kernels are one member."""
    target = schedules.backend.target
    members: dict[tuple[KernelCall, ...], tuple[Member, list[Problem]]] = {}
    for schedule in schedules.programs.values():
        for group in schedule.groups:
            if schedule.is_view(group):
                continue
            member, asked = Member(group, schedule.storage, shared_operands(schedule, group)), _Asked(tuning)
            specs = tuple(call.spec for call in member.lower(target, asked).calls)
            if not asked.problems:
                continue
            known, _ = members.setdefault(specs, (member, asked.problems))
            known.count += known is not member
    classes: dict[str, ProblemClass] = {}
    for member, problems in members.values():
        for problem in problems:
            key = class_of(problem, target)
            own = classes.setdefault(key, ProblemClass(key))
            own.problems[problem] = None
            own.cycles += member.count * problem.cycles(tuning.choose(problem, target), target)
            if member not in own.members:
                own.members.append(member)
    return sorted(classes.values(), key=lambda one: -one.cycles)
