"""From a module to an artifact with the reference backend: programs share parameters, records and figures are right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgec.backends.base import Group
from edgec.compiler.compile import CompileResult, Observer, compile_module, lower_module
from edgec.compiler.memory.report import memory_reports
from edgec.compiler.passbase import Options, Phase, Trace, check_order
from edgec.compiler.pipeline import MODULE_PASSES, SCHEDULE_PASSES
from edgec.compiler.schedule import memory_order
from edgec.compiler.train import Train
from edgec.graph import interp
from edgec.graph.errors import UserError
from edgec.graph.ir import Module, Node
from edgec.graph.parse import parse_module
from edgec.runtime.abi import Storage
from edgec.runtime.format import Opcode, Region, Slot
from edgec.runtime.layout import artifact_bytes
from edgec.tools.testing.plan_interp import LossNotFinite, PlanInterpreter
from edgec.tools.testing.programs import feeds, initialise
from edgec.tools.testing.reference_backend import SCALAR_TARGET, VECTOR_TARGET, ReferenceBackend

INFER = """
graph infer {
  input %x: f32[1,3,6,6]
  param %stem.weight: f32[8,3,3,3]
  param %stem.bias: f32[8]
  param %head.weight: f32[8,5]
  param %head.bias: f32[5]
  %c: f32[1,8,4,4] = conv2d(%x, %stem.weight)
  %v: f32[8,1,1] = reshape(%stem.bias) {shape=(8,1,1)}
  %b: f32[1,8,4,4] = add(%c, %v)
  %h: f32[1,8,4,4] = hard_swish(%b)
  %m: f32[1,8] = reduce_mean(%h) {axes=(2,3)}
  %d: f32[1,5] = matmul(%m, %head.weight)
  %logits: f32[1,5] = add(%d, %head.bias)
  output "logits" = %logits
}
"""
TRAIN = Train(momentum=0.9, weight_decay=0.01, batch=4)


def model() -> Module:
    return initialise(parse_module(INFER))


def compiled(train: Train | None = TRAIN, targets: tuple = (VECTOR_TARGET,)) -> CompileResult:
    result = compile_module(model(), [ReferenceBackend(t) for t in targets], Options(train=train))
    assert result is not None
    return result


def test_the_list_of_passes_is_in_order() -> None:
    check_order(SCHEDULE_PASSES, check_order(MODULE_PASSES))


@pytest.mark.parametrize("target", [0, 1])
def test_a_trained_step_is_visible_to_infer_and_eval(target: int) -> None:
    result = compiled(targets=(VECTOR_TARGET, SCALAR_TARGET))
    machine = PlanInterpreter(result.artifact, result.images[target], target)
    programs = result.module.programs
    state: dict[str, np.ndarray] = {}
    for step in range(3):
        arrays = feeds(programs["train"], seed=step)
        wanted = interp.run(programs["train"], {**arrays, **state})
        got = machine.run("train", arrays)
        np.testing.assert_array_equal(got["loss"], wanted.outputs["loss"])
        state |= wanted.updates
        known = {k: v for k, v in state.items() if k in programs["infer"].leaves}
        for name in ("infer", "eval"):
            arrays = feeds(programs[name], seed=10 + step)
            for output, array in interp.run(programs[name], {**arrays, **known}).outputs.items():
                np.testing.assert_array_equal(machine.run(name, arrays)[output], array)
    assert not np.array_equal(machine.tensor("stem.weight"), result.artifact.tensors[0].data)


def test_a_loss_that_is_not_finite_leaves_everything_untouched() -> None:
    result = compiled()
    machine = PlanInterpreter(result.artifact, result.images[0])
    before = {tensor.name: machine.tensor(tensor.name) for tensor in result.artifact.tensors}
    arrays = feeds(result.module.programs["train"])
    arrays["x"][0, 0, 0, 0] = np.inf
    with pytest.raises(LossNotFinite):
        machine.run("train", arrays)
    for name, array in before.items():
        np.testing.assert_array_equal(machine.tensor(name), array)


def test_trained_parameters_are_private_and_frozen_ones_mapped() -> None:
    result = compiled(Train(update="head", batch=4))
    (variant,) = result.artifact.variants
    regions = {result.artifact.tensors[p.tensor].name: (p.region, p.trained) for p in variant.placements}
    assert regions["head.weight"] == regions["head.bias"] == (Region.PARAM, True)
    assert regions["stem.weight"] == (Region.WEIGHTS, False)


def test_a_second_target_of_another_layout_copies_what_differs() -> None:
    result = compiled(train=None, targets=(VECTOR_TARGET, SCALAR_TARGET))
    artifact = result.artifact
    for variant, region in zip(artifact.variants, (Region.WEIGHTS, Region.PARAM), strict=True):
        by_name = {artifact.tensors[p.tensor].name: p for p in variant.placements}
        assert by_name["stem.weight"].region is region
    by_name = {t.name: t for t in artifact.tensors}
    assert memory_order(by_name["stem.weight"].storage) == memory_order(Storage((8, 3, 3, 3), (2, 3, 1, 0), 4))


def test_records_of_the_train_program() -> None:
    result = compiled()
    (variant,) = result.artifact.variants
    (train,) = [p for p in variant.programs if p.name == "train"]
    assert [call.opcode for call in train.calls].count(Opcode.GUARD) == 1
    assert not any(c.opcode is Opcode.GUARD for p in variant.programs if p is not train for c in p.calls)
    bindings = {b.name: b for b in train.bindings}
    assert (bindings["labels"].low, bindings["labels"].high) == (0, 4)
    assert bindings["x"].shape == (4, 3, 6, 6) and bindings["x"].low > bindings["x"].high
    assert [b.slot for b in train.bindings] == [Slot.INPUT, Slot.INPUT, Slot.SCALAR, Slot.SCALAR, Slot.LOSS]
    assert all(len(kernel.arguments) <= 24 for kernel in variant.kernels)


def test_labels_out_of_range_are_refused() -> None:
    result = compiled()
    machine = PlanInterpreter(result.artifact, result.images[0])
    arrays = feeds(result.module.programs["train"])
    arrays["labels"][0] = 5
    with pytest.raises(ValueError, match="within 0..4"):
        machine.run("train", arrays)


def test_figures() -> None:
    result = compiled()
    figures = result.report.to_json()
    assert figures["targets"] == ["reference"]
    weights = 8 * 3 * 9 + 8 + 40 + 5
    constants = figures["param_bytes"] - 4 * weights
    assert 0 <= constants <= 64  # the gradient of the mean needs a number or two
    assert figures["programs"]["infer"] == {
        "ops": 7,
        "macs": 8 * 27 * 16 + 40,
        "arena_bytes": result.schedules[0].programs["infer"].plan.arena_bytes,
        "state_bytes": 0,
        "saved_activation_bytes": 0,
        "recomputed_macs": 0,
    }
    train = figures["programs"]["train"]
    assert train["state_bytes"] == 4 * weights
    # Saved: the image as kernels read it, the stem before and the mean after hard_swish, the slopes of the losses.
    assert train["saved_activation_bytes"] == 4 * 4 * (3 * 36 + 8 * 16 + 8 + 5)
    assert train["arena_bytes"] > train["saved_activation_bytes"]
    assert json.loads(json.dumps(result.artifact.manifest)) == result.artifact.manifest


def test_memory_reports_come_from_the_manifest_alone() -> None:
    result = compiled()
    manifest = json.loads(json.dumps(result.artifact.manifest))
    reports = {report.program: report for report in memory_reports(manifest)}
    assert set(reports) == {"infer", "train", "eval"}
    for name, report in reports.items():
        plan = result.schedules[0].programs[name].plan
        assert (report.arena_bytes, report.live_peak_bytes) == (plan.arena_bytes, plan.live_peak)
        assert sum(report.by_role.values()) == sum(buffer.bytes for buffer in report.alive) <= plan.live_peak
        assert sum(-(-b.bytes // 64) * 64 for b in report.alive) == plan.live_peak
        assert report.peak_label
    assert "saved activation" in reports["train"].by_role
    with pytest.raises(UserError) as caught:
        memory_reports({})
    assert caught.value.code == "E0502"


def test_the_fingerprint_knows_the_program_and_not_the_target() -> None:
    first = compiled().artifact.fingerprint
    assert len(first) == 16
    assert compiled(targets=(SCALAR_TARGET,)).artifact.fingerprint == first
    assert compiled(Train(momentum=0.8, weight_decay=0.01, batch=4)).artifact.fingerprint != first


def test_a_node_without_a_lowering_is_the_users_to_know() -> None:
    class Backend(ReferenceBackend):
        def unsupported(self, node: Node) -> str | None:
            return "there is no hard_swish here" if node.op.name == "hard_swish" else None

    with pytest.raises(UserError, match="no hard_swish here") as caught:
        lower_module(model(), [Backend()], Options())
    assert caught.value.code == "E0403"


def test_stop_and_dump(tmp_path: Path) -> None:
    trace = Trace(dump=tmp_path, stop_after=Phase.OPTIMISE)
    result = compile_module(model(), [ReferenceBackend()], Options(), observer=Observer(trace))
    assert result is None
    last = sorted(tmp_path.iterdir())[-1]
    assert last.name.endswith("lower_groups.ir")
    text = last.read_text()
    assert "conv2d add hard_swish" in text and "-> reference_conv2d, reference_add_hard_swish" in text


def test_progress_names_the_target() -> None:
    seen: list[tuple[str, int, int]] = []
    observer = Observer(progress=lambda target, done, total: seen.append((target, done, total)))
    compile_module(model(), [ReferenceBackend()], Options(), observer=observer)
    assert seen and seen[-1][0] == "reference" and seen[-1][1] == seen[-1][2] > 0


def test_kernels_without_calls_are_our_bug() -> None:
    class Backend(ReferenceBackend):
        def lower(self, group: Group, storage, alias):
            lowering = super().lower(group, storage, alias)
            return type(lowering)(()) if group.anchor.op.name == "matmul" else lowering

    with pytest.raises(Exception, match="no kernel call"):
        lower_module(model(), [Backend()], Options())


def test_equal_input_gives_equal_bytes() -> None:
    """Nothing may depend on where objects lie in memory: sets of nodes have no order."""
    first, second = (artifact_bytes(compiled().artifact) for _ in range(2))
    assert first == second
