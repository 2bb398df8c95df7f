"""Recurrent cells over long sequences: steps share their kernels, so that code does not grow with time."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgec.compiler.passbase import Options, Phase, Trace, run_pipeline
from edgec.compiler.pipeline import SCHEDULE_LEVEL, SCHEDULE_PASSES, transform_module
from edgec.compiler.schedule import Schedule, TargetSchedules
from edgec.tools import onnx_backend
from edgec.tools.api import Request, parse_targets

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
BATCH, FEATURES, HIDDEN = 2, 5, 16


def recurrent(op: str, steps: int) -> onnx.ModelProto:
    rng = np.random.default_rng(3)
    rows = GATES[op] * HIDDEN
    shapes = {"w": (1, rows, FEATURES), "r": (1, rows, HIDDEN), "b": (1, 2 * rows)}
    weights = [
        numpy_helper.from_array(np.float32(0.3 * rng.standard_normal(shape)), name) for name, shape in shapes.items()
    ]
    node = helper.make_node(op, ["x", *shapes], ["y", "h"], hidden_size=HIDDEN)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [steps, BATCH, FEATURES])
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "h")]
    graph = helper.make_graph([node], "g", [x], results, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def scheduled(model: onnx.ModelProto) -> Schedule:
    request = Request(model, parse_targets("x86"))
    module, (backend,) = request.read(), request.backends()
    transform_module(module, request.options, Trace())
    schedules = TargetSchedules.of(module, backend)
    run_pipeline(SCHEDULE_PASSES, schedules, Options(), SCHEDULE_LEVEL, Trace(stop_after=Phase.PLAN))
    return schedules.programs["infer"]


@pytest.mark.parametrize("op", GATES)
def test_steps_share_their_kernels(op: str):
    calls, kernels = [], []
    for steps in (32, 128):
        found = [
            call.spec for lowering in scheduled(recurrent(op, steps)).lowerings.values() for call in lowering.calls
        ]
        calls.append(len(found))
        kernels.append(len(set(found)))
    assert kernels[1] <= 64  # blocks of steps, steps of a block, and what a step computes
    assert calls[1] <= 4 * calls[0]


def test_many_steps_agree_with_the_reference():
    model = recurrent("LSTM", 100)
    x = np.random.default_rng(0).standard_normal((100, BATCH, FEATURES)).astype(np.float32)
    expected = ReferenceEvaluator(model).run(None, {"x": x})
    for actual, wanted in zip(onnx_backend.run(model, [x]), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=1e-5)
