"""Random programs, planned, packed and executed over bytes: equal to the reference interpreter, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.backends.base import Target
from edgec.compiler.compile import CompileResult, lower_module
from edgec.compiler.passbase import Options
from edgec.graph import interp
from edgec.graph.ir import Graph, Module
from edgec.tools.testing.plan_interp import LossNotFinite, PlanInterpreter
from edgec.tools.testing.programs import feeds, initialise, random_trains
from edgec.tools.testing.reference_backend import DEVICE_TARGET, SCALAR_TARGET, VECTOR_TARGET, ReferenceBackend

TARGETS = st.sampled_from([SCALAR_TARGET, VECTOR_TARGET, DEVICE_TARGET])
SKIPS = st.sets(st.sampled_from(["fuse_epilogue", "fuse_tails", "pair_in_place", "merge_launches"])).map(frozenset)


def lowered(graph: Graph, target: Target, skip: frozenset[str] = frozenset()) -> CompileResult:
    module = initialise(Module({graph.name: graph}))
    return lower_module(module, [ReferenceBackend(target)], Options(skip=skip))


@given(random_trains(), TARGETS, SKIPS)
@settings(max_examples=150, deadline=None)
def test_steps_equal_the_reference_to_the_bit(graph: Graph, target: Target, skip: frozenset[str]) -> None:
    result = lowered(graph, target, skip)
    machine = PlanInterpreter(result.artifact, result.images[0])
    state: dict[str, np.ndarray] = {}
    for step in range(3):
        arrays = feeds(graph, seed=step)
        wanted = interp.run(graph, {**arrays, **state})
        loss = wanted.outputs.get(graph.loss or "", np.float32(0))
        if graph.updates and not np.isfinite(loss):
            with pytest.raises(LossNotFinite):
                machine.run("train", arrays)
            break
        outputs = machine.run("train", arrays)
        state |= wanted.updates
        for name, array in wanted.outputs.items():
            np.testing.assert_array_equal(outputs[name], array, err_msg=f"output {name} of step {step}")
        for name, array in wanted.updates.items():
            np.testing.assert_array_equal(machine.tensor(name), array, err_msg=f"new value of {name} of step {step}")


@given(random_trains(), TARGETS, SKIPS)
@settings(max_examples=60, deadline=None)
def test_the_arena_is_at_least_the_live_peak(graph: Graph, target: Target, skip: frozenset[str]) -> None:
    schedule = lowered(graph, target, skip).schedules[0].programs["train"]
    assert schedule.plan.arena_bytes >= schedule.plan.live_peak
