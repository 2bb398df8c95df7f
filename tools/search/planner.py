"""The true bytes of a scheme: its real plan, with everything that `edgec compile` does to keep to a budget."""

from __future__ import annotations

import dataclasses

from edgec.compiler.budget import bytes_within, counted_bytes, schedule_target
from edgec.compiler.passbase import Options, Trace
from edgec.compiler.pipeline import transform_module
from edgec.compiler.sparse.scheme import Scheme
from edgec.graph.errors import UserError
from edgec.graph.ir import Module
from edgec.tools.request import Request

_PROBES = 6
_CLOSE = 1.05


class Planner:
    """Plans schemes of one model for all targets of `request`, whose own update is not looked at."""

    def __init__(self, request: Request, module: Module):
        self._request, self._module = request, module

    def bytes_within(self, scheme: Scheme, budget: int) -> int | None:
        """What the plan of `scheme` takes, on the target that needs most; None where it cannot be had for `budget`."""
        return self._within(self._transformed(scheme), self._options(scheme, budget), budget)

    def smallest(self, scheme: Scheme) -> int:
        """About the least budget for which strips alone make a plan of `scheme`; that much is enough."""
        module, options = self._transformed(scheme), self._options(scheme, None)
        options = dataclasses.replace(options, skip=options.skip | {"recompute_activations"})
        plain = [schedule_target(module, backend, options, Trace()) for backend in self._request.backends()]
        high = max(counted_bytes(schedules) for schedules in plain)
        low = high // 8
        for _ in range(_PROBES):
            if high <= low * _CLOSE:
                break
            middle = int((low * high) ** 0.5)
            size = self._within(module, options, middle)
            if size is None:
                low = middle
            else:
                high = size
        return high

    def _within(self, module: Module, options: Options, budget: int) -> int | None:
        found = []
        for backend in self._request.backends():
            size = bytes_within(module, backend, options, budget)
            if size is None:
                return None
            found.append(size)
        return max(found)

    def _transformed(self, scheme: Scheme) -> Module:
        module = self._module.clone()
        transform_module(module, self._options(scheme, None))
        return module

    def _options(self, scheme: Scheme, budget: int | None) -> Options:
        train = dataclasses.replace(self._request.train, update=scheme, memory_budget=budget)
        return dataclasses.replace(self._request.options, train=train)


def refuse_small(budget: int, smallest: int) -> UserError:
    message = f"even the smallest update, the head alone, needs {smallest:,} bytes, and the budget is {budget:,}"
    return UserError("E0405", message, where="memory budget", hint="take a smaller train batch, or smaller inputs")
