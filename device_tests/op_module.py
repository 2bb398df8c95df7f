"""All op cases as one module: a program per case, so that one artifact carries them all to an executor."""

from __future__ import annotations

import numpy as np
from cases.op_case import OpCase

from edgec.graph.ir import Graph, Module, Role


def op_module(cases: tuple[OpCase, ...]) -> Module:
    """One program per case, of its name: operands are inputs `x0`, `x1`, ..., results outputs `y0`, `y1`, ..."""
    module = Module()
    for case in cases:
        graph = Graph(case.name)
        inputs = [graph.add_leaf(Role.INPUT, f"x{i}", kind) for i, kind in enumerate(case.types)]
        for i, value in enumerate(graph.emit(case.op, *inputs, source=case.name)):
            graph.outputs[f"y{i}"] = value
        module.programs[case.name] = graph
    return module


def operands(case: OpCase, seed: int = 0) -> dict[str, np.ndarray]:
    return {f"x{i}": array for i, array in enumerate(case.arrays(seed))}


def results(case: OpCase, seed: int = 0) -> dict[str, np.ndarray]:
    """What the op's reference says."""
    with np.errstate(all="ignore"):
        return {f"y{i}": array for i, array in enumerate(case.op.reference(*case.arrays(seed)))}
