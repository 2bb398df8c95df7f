"""compress_saved: what is kept in a lossy form, what is not, and how far gradients may then be off."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.backends.base import Target
from edgec.compiler.compile import compile_module
from edgec.compiler.passbase import Options
from edgec.compiler.passes.compress_saved import compress_saved
from edgec.compiler.pipeline import transform_module
from edgec.compiler.recompute import forward_nodes, kept_values, recompute
from edgec.compiler.train import Train
from edgec.graph.equal import graph_difference
from edgec.graph.interp import run
from edgec.graph.ir import Module
from edgec.graph.ops.compress import STEPS
from edgec.graph.parse import parse_graph
from edgec.graph.types import DType
from edgec.graph.verify import verify_graph
from edgec.tools.testing.pass_check import check_pass
from edgec.tools.testing.plan_interp import PlanInterpreter
from edgec.tools.testing.programs import feeds, initialise
from edgec.tools.testing.reference_backend import SCALAR_TARGET, VECTOR_TARGET, ReferenceBackend
from edgec.tools.testing.train_cases import CASES
from edgec.tools.testing.widen import narrowed

BATCH = 32  # so that activations of small models are worth it
F16, INT8 = (Options(train=Train(saved_activations=form)) for form in ("f16", "int8"))

# The weight's gradient reads %h, which takes 8 KB.
PRODUCT = """
graph train {
  input %x: f32[64,32]
  param %v: f32[32,32]
  param %w: f32[32,4] trainable
  scalar %lr: f32[]
  %h: f32[64,32] = MADE
  KEPT
  %y: f32[64,4] = matmul(%h, %w)
  %loss: f32[] = reduce_sum(%y) {axes=(0,1)}
  BEHIND
  %g: f32[32,4] = matmul(%back, %y) {transpose_a=true}
  %new: f32[32,4] = sgd_update(%w, %g, %lr)
  output "loss" = %loss
  update %w = %new
  loss "loss"
}
"""


def program(made: str = "matmul(%x, %v)", behind: str = "", back: str = "%h", kept: str = "") -> str:
    text = PRODUCT.replace("MADE", made).replace("BEHIND", behind).replace("KEPT", kept)
    return text.replace("%back,", f"{back},")


def test_half_floats_wait_for_the_reader() -> None:
    kept = '%half: f16[64,32] = compress(%h) {to="f16"}'
    after = program(kept=kept, behind="%again: f32[64,32] = decompress(%half)", back="%again")
    module = Module({"train": parse_graph(program())})
    assert compress_saved(module, F16)
    assert graph_difference(module.programs["train"], parse_graph(after)) is None


def test_bytes_wait_with_a_range_for_each_channel() -> None:
    graph = parse_graph(program())
    assert compress_saved(Module({"train": graph}), INT8)
    verify_graph(graph)
    kept = {
        value.type.dtype: value.type.shape for value in kept_values(graph, forward_nodes(graph)) if value.name != "y"
    }
    assert kept == {DType.U8: (64, 32), DType.F32: (1, 32)}


@pytest.mark.parametrize(
    "behind",
    [
        "%back: f32[64,32] = relu_grad(%x, %h)",
        "%back: f32[64,32] = div(%x, %h)",
        "%back: f32[64,32] = exp(%h)",
        "%b: bool[64,32] = less(%x, %h)\n  %back: f32[64,32] = where(%b, %x, %x)",
        "%m: f32[64,32] = mul(%h, %h)\n  %back: f32[64,32] = sqrt(%m)",
    ],
)
@pytest.mark.parametrize("options", [F16, INT8], ids=["f16", "int8"])
def test_what_decides_or_is_magnified_stays_exact(behind: str, options: Options) -> None:
    before = program(behind=behind, back="%back")
    check_pass(compress_saved, before, before, options)


def test_what_is_small_or_a_result_stays_exact() -> None:
    """%y has 1 KB."""
    text = program().replace('output "loss" = %loss', 'output "loss" = %loss\n  output "h" = %h')
    check_pass(compress_saved, text, text, INT8)


@pytest.mark.parametrize("made", ["softmax(%x) {axis=1}", "matmul(%few, %v)"])
def test_softmax_and_few_rows_are_kept_as_half_floats(made: str) -> None:
    """Of eight rows, scales for each column take as much as bytes save."""
    text = program(made)
    if "few" in made:
        text = text.replace("f32[64,", "f32[8,").replace("32,32]", "32,320]").replace("f32[8,32]", "f32[8,320]")
        text = text.replace("input %x: f32[8,320]", "input %few: f32[8,32]").replace("[32,4]", "[320,4]")
    graph = parse_graph(text)
    compress_saved(Module({"train": graph}), INT8)
    assert "h.f16" in {value.name for value in graph.values()}


@pytest.mark.parametrize("options", [F16, INT8], ids=["f16", "int8"])
def test_a_gradient_is_as_close_as_the_form_says(options: Options) -> None:
    """|dw - exact| <= |error of x|^T |dy|, the error half a step of the form; zeros stay zeros."""
    graph = parse_graph(program())
    exact, (module,) = graph.clone(), (Module({"train": graph}),)
    compress_saved(module, options)
    rng = np.random.default_rng(0)
    given = {name: rng.standard_normal(graph.leaves[name].type.shape).astype(np.float32) for name in "xvw"}
    given["x"] *= (rng.random((64, 32)) < 0.2) * np.float32(10.0)
    given["x"][0] = 0.0
    seen: dict[str, np.ndarray] = {}
    got = run(graph, given | {"lr": np.float32(-1.0)}, observe=seen.__setitem__)
    wanted = run(exact, given | {"lr": np.float32(-1.0)})
    h, y, again = seen["h"].astype(np.float64), seen["y"], seen["h.kept"]
    if options is F16:
        bound = np.abs(h) * 2.0**-11
    else:
        bound = np.broadcast_to(np.ptp(h, axis=0) / STEPS / 2, h.shape)
    bound = bound * 1.001 + 1e-6
    assert (np.abs(again - h) <= bound).all() and not np.array_equal(again, h)
    np.testing.assert_array_equal(again[0], 0.0)
    off = np.abs(got.updates["w"].astype(np.float64) - wanted.updates["w"])
    rounding = 1e-6 * (np.abs(h).T @ np.abs(y) + 1.0)
    assert (off <= bound.T @ np.abs(y) + rounding).all() and off.max() > 0


def test_half_floats_never_become_infinite() -> None:
    module = initialise(Module({"train": parse_graph(program())}))
    compress_saved(module, F16)
    graph = module.programs["train"]
    given = feeds(graph) | {"v": np.full((32, 32), 1e6, np.float32)}
    seen: dict[str, np.ndarray] = {}
    run(graph, given, observe=seen.__setitem__)
    assert np.abs(seen["h"]).max() > 1e5 and np.isfinite(seen["h.kept"]).all()


@pytest.mark.parametrize("form", ["f16", "int8"])
def test_masks_come_from_the_exact_values(form: str) -> None:
    """A relu whose output the next layer needs as well: bits beside it say where the gradient passes."""
    twins = CASES["small_cnn"]()
    module = narrowed(twins.module)
    transform_module(module, Options(train=Train(batch=BATCH, saved_activations=form)))
    graph = module.programs["train"]
    ops = {node.op.name for node in graph.nodes}
    assert {"compress", "decompress", "inside_bits", "gate_by_bits"} <= ops and "relu_grad" not in ops


@pytest.mark.parametrize("name", ["small_cnn", "separable_net"])
@pytest.mark.parametrize("form", ["f16", "int8"])
def test_a_step_is_close_to_the_exact_one_and_keeps_less(name: str, form: str) -> None:
    """Relative error of each update's gradient as a whole: some units of the form, which errors of many layers add."""
    twins = CASES[name]()
    found = []
    for kept_as in ("exact", form):
        module = narrowed(twins.module)
        transform_module(module, Options(train=Train(batch=BATCH, saved_activations=kept_as)))
        graph = module.programs["train"]
        x, labels = twins.batch(BATCH)
        before = {leaf.name: leaf.data.copy() for leaf in graph.updates}
        results = run(graph, {"x": x, "labels": labels, "lr": np.float32(1.0)})
        gradients = {key: before[key] - array for key, array in results.updates.items()}
        kept = [v for v in kept_values(graph, forward_nodes(graph)) if v not in graph.results()]
        found.append((sum(v.type.bytes for v in kept), results.outputs["loss"], gradients))
    (whole, loss, wanted), (part, same_loss, got) = found
    assert same_loss == loss
    assert part < {"f16": 0.65, "int8": 0.5}[form] * whole
    for key, array in wanted.items():
        error = np.linalg.norm(got[key] - array) / np.linalg.norm(array)
        assert error < {"f16": 4 * 2.0**-11, "int8": 4 / STEPS}[form], (key, error)


@pytest.mark.parametrize("target", [SCALAR_TARGET, VECTOR_TARGET], ids=lambda target: target.name)
@pytest.mark.parametrize("form", ["f16", "int8"])
def test_forms_work_in_a_plan(form: str, target: Target) -> None:
    twins = CASES["small_cnn"]()
    options = Options(train=Train(batch=BATCH, saved_activations=form))
    result = compile_module(narrowed(twins.module), [ReferenceBackend(target)], options)
    graph = result.module.programs["train"]
    given = feeds(graph) | {"lr": np.float32(0.1)}
    wanted = run(graph, given)
    machine = PlanInterpreter(result.artifact, result.images[0])
    machine.run("train", given)
    for name, array in wanted.updates.items():
        np.testing.assert_array_equal(machine.tensor(name), array, err_msg=name)
    figures = result.report.programs["train"]
    exact = compile_module(narrowed(twins.module), [ReferenceBackend(target)], Options(train=Train(batch=BATCH)))
    assert figures.saved_activation_bytes < exact.report.programs["train"].saved_activation_bytes - 7000


def test_what_is_computed_again_needs_no_other_form() -> None:
    """The copy is what was compressed; nothing is left of the kept form and its scales."""
    module = initialise(Module({"train": parse_graph(program())}))
    exact, graph = module.programs["train"].clone(), module.programs["train"]
    compress_saved(module, INT8)
    recompute(graph, [value for value in graph.values() if value.name in ("h", "h.u8")])
    verify_graph(graph)
    assert not {"compress", "decompress", "reduce_max"} & {node.op.name for node in graph.nodes}
    given = feeds(exact)
    np.testing.assert_array_equal(run(graph, given).updates["w"], run(exact, given).updates["w"])
