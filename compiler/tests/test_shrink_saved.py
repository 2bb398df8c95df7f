"""shrink_saved: the cheapest set of values to keep, and programs that compute the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from edgec.backends.base import Target
from edgec.compiler.compile import compile_module
from edgec.compiler.passbase import Options
from edgec.compiler.passes.shrink_saved import shrink_saved
from edgec.compiler.pipeline import transform_module
from edgec.compiler.recompute import forward_nodes, kept_values
from edgec.compiler.train import Train
from edgec.graph.interp import run
from edgec.graph.ir import Graph, Module
from edgec.graph.parse import parse_graph, parse_module
from edgec.graph.verify import verify_module
from edgec.tools.testing.pass_check import check_pass
from edgec.tools.testing.plan_interp import PlanInterpreter
from edgec.tools.testing.programs import feeds, initialise, random_trains
from edgec.tools.testing.reference_backend import SCALAR_TARGET, VECTOR_TARGET, ReferenceBackend
from edgec.tools.testing.train_cases import CASES

# Both the argument and the result of a hard-swish are read behind the guard, as after differentiation.
BEFORE = """
graph train {
  input %x: f32[2,4]
  param %w: f32[4,4] trainable
  scalar %lr: f32[]
  %h: f32[2,4] = matmul(%x, %w)
  %y: f32[2,4] = hard_swish(%h)
  %loss: f32[] = reduce_sum(%y) {axes=(0,1)}
  %d: f32[2,4] = hard_swish_grad(%x, %h)
  AGAIN
  %e: f32[2,4] = mul(%d, KEPT)
  %g: f32[4,4] = matmul(%x, %e) {transpose_a=true}
  %new: f32[4,4] = sgd_update(%w, %g, %lr)
  output "loss" = %loss
  update %w = %new
  loss "loss"
}
"""


def test_a_result_comes_back_from_the_argument_that_is_kept_anyway() -> None:
    before = BEFORE.replace("AGAIN", "").replace("KEPT", "%y")
    again = '%"y.again": f32[2,4] = hard_swish(%h)'
    check_pass(shrink_saved, before, BEFORE.replace("AGAIN", again).replace("KEPT", '%"y.again"'), Options())


def test_of_equal_cuts_the_one_without_work_is_taken() -> None:
    """Only the result of relu is read: keeping its argument instead would gain nothing."""
    before = BEFORE.replace("AGAIN", "").replace("KEPT", "%y").replace("hard_swish_grad(%x, %h)", "relu_grad(%x, %y)")
    before = before.replace("hard_swish(", "relu(")
    check_pass(shrink_saved, before, before, Options())


def test_what_leaves_give_needs_no_memory_between_the_parts() -> None:
    """A weight scaled by a norm comes back from the weight; a matmul is never computed twice."""
    text = """
    graph train {
      input %x: u8[2,4]
      param %w: f32[4,4] trainable
      param %gamma: f32[4]
      scalar %lr: f32[]
      %image: f32[2,4] = cast(%x) {to="f32"}
      %scaled: f32[4,4] = mul(%w, %gamma)
      %h: f32[2,4] = matmul(%image, %scaled)
      %loss: f32[] = reduce_sum(%h) {axes=(0,1)}
      %d: f32[2,4] = matmul(%h, %scaled)
      %g: f32[4,4] = matmul(%image, %d) {transpose_a=true}
      %new: f32[4,4] = sgd_update(%w, %g, %lr)
      output "loss" = %loss
      update %w = %new
      loss "loss"
    }
    """
    module = parse_module(text)
    assert shrink_saved(module, Options())
    graph = module.programs["train"]
    assert [value.name for value in kept_values(graph, forward_nodes(graph))] == ["h"]


@given(random_trains())
@settings(max_examples=60, deadline=None)
def test_less_is_kept_and_nothing_computed_differently(graph: Graph) -> None:
    if graph.loss is None or not graph.updates:
        return
    module = initialise(Module({"train": graph}))
    original = graph.clone()
    shrink_saved(module, Options())
    verify_module(module)
    assert kept_bytes(graph) <= kept_bytes(original)
    given_arrays = feeds(graph)
    wanted, got = run(original, given_arrays), run(graph, given_arrays)
    for name, array in (wanted.outputs | wanted.updates).items():
        np.testing.assert_array_equal((got.outputs | got.updates)[name], array, err_msg=name)


def kept_bytes(graph: Graph) -> int:
    """Bytes that only the pass decides on: leaves and results keep their memory anyway."""
    results = set(graph.results())
    kept = sum(v.type.bytes for v in kept_values(graph, forward_nodes(graph)) if v not in results)
    forward = forward_nodes(graph)
    inputs = [v for v in graph.leaves.values() if v.role.value == "input"]
    return kept + sum(v.type.bytes for v in inputs if any(node not in forward for node, _ in v.uses))


@pytest.mark.parametrize("name", ["separable_net", "small_cnn"])
def test_a_whole_step_computes_the_same_bits(name: str) -> None:
    twins = CASES[name]()
    arrays = []
    for skip in (frozenset(), frozenset({"shrink_saved"})):
        module = twins.module.clone()
        transform_module(module, Options(train=Train(batch=3, momentum=0.9), skip=skip))
        x, labels = twins.batch(3)
        results = run(module.programs["train"], {"x": x, "labels": labels, "lr": np.float32(0.1)})
        arrays.append((kept_bytes(module.programs["train"]), results))
    (shrunk, got), (whole, wanted) = arrays
    assert shrunk <= whole if name == "small_cnn" else shrunk < 0.8 * whole
    for key, array in (wanted.outputs | wanted.updates).items():
        np.testing.assert_array_equal((got.outputs | got.updates)[key], array, err_msg=key)


GATED = """
graph train {
  input %x: f32[8,3]
  param %w: f32[3,5]
  param %v: f32[5] trainable
  scalar %lr: f32[]
  %h: f32[8,5] = matmul(%x, %w)
  %b: f32[8,5] = add(%h, %v)
  %y: f32[8,5] = OP
  KEPT
  %loss: f32[] = reduce_sum(%y) {axes=(0,1)}
  %up: f32[8,5] = broadcast_to(%loss) {shape=(8,5)}
  GRADIENT
  %g: f32[5] = reduce_sum(%d) {axes=(0)}
  %new: f32[5] = sgd_update(%v, %g, %lr)
  output "loss" = %loss
  update %v = %new
  loss "loss"
}
"""


@pytest.mark.parametrize(
    ("op", "gradient", "interval", "gate"),
    [
        ("relu(%b)", "relu_grad(%up, %y)", "low=0.0, high=inf", "%d: f32[8,5] = gate_by_bits(%up, %bits) {axis=0}"),
        (
            "clip(%b) {low=-1.0, high=6.0}",
            "clip_grad(%up, %y) {low=-1.0, high=6.0}",
            "low=-1.0, high=6.0",
            "%d: f32[8,5] = gate_by_bits(%up, %bits) {axis=0}",
        ),
        (
            "hard_sigmoid(%b) {alpha=0.25, beta=0.5}",
            "hard_sigmoid_grad(%up, %y) {alpha=0.25}",
            "low=0.0, high=1.0",
            "%p: f32[8,5] = gate_by_bits(%up, %bits) {axis=0}\n  %d: f32[8,5] = mul(%p, %c)",
        ),
    ],
)
def test_what_only_gates_is_kept_as_bits(op: str, gradient: str, interval: str, gate: str) -> None:
    before = GATED.replace("OP", op).replace("KEPT", "").replace("GRADIENT", f"%d: f32[8,5] = {gradient}")
    bits = f"%bits: u8[1,5] = inside_bits(%y) {{{interval}, axis=0}}"
    after = GATED.replace("OP", op).replace("KEPT", bits).replace("GRADIENT", gate)
    if "%c" in gate:
        after = after.replace("scalar %lr: f32[]", "scalar %lr: f32[]\n  constant %c: f32[] = [0.25]")
    check_pass(shrink_saved, before, after, Options())


def test_bits_are_not_kept_beside_the_value() -> None:
    before = (
        GATED.replace("OP", "relu(%b)")
        .replace("KEPT", "")
        .replace("%up: f32[8,5] = broadcast_to(%loss) {shape=(8,5)}", "%up: f32[8,5] = mul(%y, %y)")
    )
    before = before.replace("GRADIENT", "%d: f32[8,5] = relu_grad(%up, %y)")
    check_pass(shrink_saved, before, before, Options())


@pytest.mark.parametrize("target", [SCALAR_TARGET, VECTOR_TARGET], ids=lambda target: target.name)
def test_bits_work_in_a_plan(target: Target) -> None:
    """A step that trains biases alone keeps 1/32 of each activation, and updates to the bit as without the pass."""
    lines = ["graph infer {", "input %x: f32[2,8,6,6]", "param %fc: f32[288,3]"]
    before = "x"
    for i in range(3):
        lines += [f"param %w{i}: f32[8,8,3,3]", f"param %b{i}: f32[8,1,1]"]
        lines += [f"%c{i}: f32[2,8,6,6] = conv2d(%{before}, %w{i}) {{pads=(1,1,1,1)}}"]
        lines += [f"%s{i}: f32[2,8,6,6] = add(%c{i}, %b{i})", f"%h{i}: f32[2,8,6,6] = relu(%s{i})"]
        before = f"h{i}"
    lines += [f"%flat: f32[2,288] = reshape(%{before}) {{shape=(2,288)}}", "%y: f32[2,3] = matmul(%flat, %fc)"]
    text = "\n".join([*lines, 'output "y" = %y', "}"])
    found = []
    for skip in (frozenset(), frozenset({"shrink_saved"})):
        module = initialise(Module({"infer": parse_graph(text)}))
        for leaf in module.programs["infer"].leaves.values():
            if leaf.data is not None:
                leaf.data *= np.float32(0.2)
        options = Options(train=Train(update="bias", batch=2), skip=skip)
        result = compile_module(module, [ReferenceBackend(target)], options)
        machine = PlanInterpreter(result.artifact, result.images[0])
        for step in range(2):
            machine.run("train", feeds(result.module.programs["train"], seed=step) | {"lr": np.float32(0.1)})
        names = sorted(leaf.name for leaf in result.module.programs["train"].updates)
        figures = result.report.programs["train"]
        found.append((figures.saved_activation_bytes, [machine.tensor(name) for name in names]))
    (bits, got), (floats, wanted) = found
    assert bits <= floats - 2 * 31 * (4 * 2 * 8 * 36) // 32
    for left, right in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(left, right)
