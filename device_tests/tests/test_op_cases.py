"""The common op cases on every executor."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from cases.all_cases import OP_CASES
from cases.op_case import OpCase, assert_agrees
from executors import INTERPRETERS, MACHINES, SPECIALISED, Session
from op_module import op_model, op_module, operands, results
from subject import Subject

from edgec.graph.ops import ALL_OPS
from edgec.graph.ops.non_max_suppression import NonMaxSuppression
from edgec.graph.verify import FORBIDDEN, Phase

SUBJECT = Subject(lambda: op_module(OP_CASES))
# What a model may contain: the rest comes of differentiation alone, and statistics of batch norm are never inputs.
FORWARD_CASES = tuple(case for case in OP_CASES if case.op.name not in FORBIDDEN[Phase.SPECIALISED])
FEWEST_CASES = 4


@pytest.fixture(scope="module", params=INTERPRETERS, ids=str)
def interpreter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Session:
    return request.param.open(SUBJECT, tmp_path_factory.mktemp(str(request.param)))


# The unscheduled kernels have tests of their own in backends/; rpi5 is rpi4 with another pipeline model.
LONG = ("generic", "rpi5")


@pytest.fixture(
    scope="module",
    params=[pytest.param(m, marks=pytest.mark.long) if m.name in LONG else m for m in MACHINES],
    ids=str,
)
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Session:
    return request.param.open(SUBJECT, tmp_path_factory.mktemp(str(request.param)))


@pytest.mark.parametrize("case", OP_CASES, ids=str)
def test_interpreted(interpreter: Session, case: OpCase) -> None:
    """Graph, memory plan and packing, with the references as kernels: to the bit."""
    got = interpreter.run(case.name, [operands(case)]).outputs
    for name, array in results(case).items():
        np.testing.assert_array_equal(got[name], array)


@pytest.mark.parametrize("case", FORWARD_CASES, ids=str)
def test_specialised(case: OpCase, tmp_path: Path) -> None:
    """Folding and canonical forms, which may round on their own."""
    session = SPECIALISED.open(Subject(lambda: op_model(case)), tmp_path)
    got = session.run("infer", [operands(case)]).outputs
    for name, array in results(case).items():
        assert_agrees(case.op, got[name], array)


@pytest.mark.parametrize("case", OP_CASES, ids=str)
def test_compiled(machine: Session, case: OpCase) -> None:
    """Generated kernels through the C runtime, within the op's tolerance."""
    ran = machine.run(case.name, [operands(case)])
    assert ran.kernels, "nothing was computed by a kernel"
    for name, array in results(case).items():
        assert_agrees(case.op, ran.outputs[name], array)


@pytest.mark.parametrize("op", ALL_OPS, ids=lambda op: op.name)
def test_every_op_has_cases(op: type) -> None:
    """Several of them, some with an odd extent in every operand that is not a scalar."""
    cases = [case for case in OP_CASES if type(case.op) is op]
    fixed = 4 if op is NonMaxSuppression else None  # coordinates of a box
    assert len(cases) >= FEWEST_CASES
    assert any(all(extent % 2 or extent == fixed for kind in case.types for extent in kind.shape) for case in cases)


def test_names_are_unique() -> None:
    assert Counter(case.name for case in OP_CASES).most_common(1)[0][1] == 1
