"""shrink_saved: the cheapest set of values to keep, and programs that compute the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from edgec.compiler.passbase import Options
from edgec.compiler.passes.shrink_saved import shrink_saved
from edgec.compiler.pipeline import transform_module
from edgec.compiler.recompute import forward_nodes, kept_values
from edgec.compiler.train import Train
from edgec.graph.interp import run
from edgec.graph.ir import Graph, Module
from edgec.graph.parse import parse_module
from edgec.graph.verify import verify_module
from edgec.tools.testing.pass_check import check_pass
from edgec.tools.testing.programs import feeds, initialise, random_trains
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
