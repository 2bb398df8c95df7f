"""The common op cases on executors of whole artifacts: the plan interpreter, and compiled kernels in the C runtime."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from cases.all_cases import OP_CASES
from cases.op_case import OpCase, assert_agrees
from op_module import op_module, operands, results

from edgec.backends.base import Backend
from edgec.backends.targets import find_target
from edgec.backends.tvm.backend import TvmBackend
from edgec.compiler.compile import CompileResult, lower_module
from edgec.compiler.passbase import Options
from edgec.runtime import load
from edgec.runtime.layout import write_artifact
from edgec.tools.testing.plan_interp import PlanInterpreter
from edgec.tools.testing.reference_backend import SCALAR_TARGET, VECTOR_TARGET, ReferenceBackend

Executor = Callable[[str, dict[str, np.ndarray]], dict[str, np.ndarray]]


def _compiled(backend: Backend) -> CompileResult:
    result = lower_module(op_module(OP_CASES), [backend], Options())
    assert result is not None
    return result


@pytest.fixture(scope="module", params=[SCALAR_TARGET, VECTOR_TARGET], ids=["row-major", "channels-last"])
def planned(request: pytest.FixtureRequest) -> Executor:
    result = _compiled(ReferenceBackend(request.param))
    return PlanInterpreter(result.artifact, result.images[0]).run


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Executor:
    result = _compiled(TvmBackend(find_target("x86")))
    path = tmp_path_factory.mktemp("ops") / "ops.edge"
    write_artifact(path, result.artifact)
    model = load(path, threads=2)
    return lambda program, feeds: model.run(feeds, program=program)


@pytest.mark.parametrize("case", OP_CASES, ids=str)
def test_planned(planned: Executor, case: OpCase) -> None:
    """Memory plan and packing, with the references as kernels: to the bit."""
    for name, array in planned(case.name, operands(case)).items():
        np.testing.assert_array_equal(array, results(case)[name])


@pytest.mark.parametrize("case", OP_CASES, ids=str)
def test_compiled(runtime: Executor, case: OpCase) -> None:
    """Generated kernels through the C runtime, within the op's tolerance."""
    got = runtime(case.name, operands(case))
    for name, array in results(case).items():
        assert_agrees(case.op, got[name], array)
