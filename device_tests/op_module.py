"""All op cases as one module: a program per case, so that one artifact carries them all to an executor."""

from __future__ import annotations

import numpy as np
from cases.op_case import OpCase

from edgec.graph.ir import Graph, Module, Role


def op_module(cases: tuple[OpCase, ...]) -> Module:
    """One program per case, of its name: operands are inputs `x0`, `x1`, ..., results outputs `y0`, `y1`, ..."""
    return Module({case.name: _program(case.name, case) for case in cases})


def op_model(case: OpCase) -> Module:
    """The same for one case as a model that passes take: its program is `infer`."""
    return Module({"infer": _program("infer", case)})


def _program(name: str, case: OpCase) -> Graph:
    graph = Graph(name)
    inputs = [graph.add_leaf(Role.INPUT, f"x{i}", kind) for i, kind in enumerate(case.types)]
    for i, value in enumerate(graph.emit(case.op, *inputs, source=case.name)):
        graph.outputs[f"y{i}"] = value
    return graph


def operands(case: OpCase, seed: int = 0) -> dict[str, np.ndarray]:
    return {f"x{i}": array for i, array in enumerate(case.arrays(seed))}


def results(case: OpCase, seed: int = 0) -> dict[str, np.ndarray]:
    """What the op's reference says."""
    with np.errstate(all="ignore"):
        return {f"y{i}": array for i, array in enumerate(case.op.reference(*case.arrays(seed)))}
