"""What an executor is given: a module that can be read afresh, since passes change it in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgec.compiler.passbase import Options, Phase, Trace
from edgec.compiler.pipeline import transform_module
from edgec.graph.ir import Module


@dataclass(frozen=True)
class Subject:
    """`read` gives the module as a frontend would; `last_phase` is how far it goes before it is lowered.

    Op cases are lowered as they are (None): the passes on modules would fold away what the cases are about.
    """

    read: Callable[[], Module]
    options: Options = Options()
    last_phase: Phase | None = None

    def after(self, phase: Phase | None) -> Module:
        """A fresh module that has been through all passes up to and with those of `phase`; None: through none."""
        module = self.read()
        if phase is not None:
            transform_module(module, self.options, Trace(stop_after=phase))
        return module

    def lowered(self) -> Module:
        """A fresh module, ready for `lower_module`."""
        return self.after(self.last_phase)
