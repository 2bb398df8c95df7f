"""The true bytes of a scheme: its real plan, with everything that `edgec compile` does to keep to a budget."""

from __future__ import annotations

import dataclasses
from typing import Literal

from edgec.compiler.budget import counted_bytes, planned_within, schedule_target
from edgec.compiler.passbase import Options, Trace
from edgec.compiler.pipeline import transform_module
from edgec.compiler.report import program_figures
from edgec.compiler.sparse.scheme import Scheme
from edgec.graph.errors import UserError
from edgec.graph.ir import Module
from edgec.tools.request import Request

Again = Literal["nothing", "values"]  # what a plan may compute a second time, besides the edges of strips

_PROBES = 6
_CLOSE = 1.05


class Planner:
    """Plans schemes of one model for all targets of `request`, whose own update is not looked at."""

    def __init__(self, request: Request, module: Module):
        self._request, self._module = request, module

    def within(self, scheme: Scheme, budget: int, again: Again) -> tuple[int, int] | None:
        """Bytes and multiply-adds of a step of the plan of `scheme`, on the target that needs most of each; None where
        it cannot be had for `budget`, by strips alone or by computing values again.
        """
        return self._within(self._transformed(scheme), self._options(scheme, budget, again), budget)

    def smallest(self, scheme: Scheme) -> int:
        """About the least budget for which strips alone make a plan of `scheme`; that much is enough."""
        module, options = self._transformed(scheme), self._options(scheme, None, "nothing")
        plain = [schedule_target(module, backend, options, Trace()) for backend in self._request.backends()]
        high = max(counted_bytes(schedules) for schedules in plain)
        low = high // 8
        for _ in range(_PROBES):
            if high <= low * _CLOSE:
                break
            middle = int((low * high) ** 0.5)
            found = self._within(module, options, middle)
            if found is None:
                low = middle
            else:
                high = found[0]
        return high

    def _within(self, module: Module, options: Options, budget: int) -> tuple[int, int] | None:
        sizes, macs = [], []
        for backend in self._request.backends():
            schedules = planned_within(module, backend, options, budget)
            if schedules is None:
                return None
            figures = program_figures(module, "train", [schedules.programs["train"]])
            sizes.append(counted_bytes(schedules))
            macs.append(figures.macs + figures.recomputed_macs)
        return max(sizes), max(macs)

    def _transformed(self, scheme: Scheme) -> Module:
        module = self._module.clone()
        transform_module(module, self._options(scheme, None, "nothing"))
        return module

    def _options(self, scheme: Scheme, budget: int | None, again: Again) -> Options:
        train = dataclasses.replace(self._request.train, update=scheme, memory_budget=budget)
        skip = frozenset() if again == "values" else frozenset({"recompute_activations"})
        return dataclasses.replace(self._request.options, train=train, skip=skip)


def refuse_small(budget: int, smallest: int) -> UserError:
    message = f"even the smallest update, the head alone, needs {smallest:,} bytes, and the budget is {budget:,}"
    return UserError("E0405", message, where="memory budget", hint="take a smaller train batch, or smaller inputs")
