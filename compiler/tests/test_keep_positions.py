"""keep_positions: the forward pool hands out positions, in a byte each, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.backends.base import Target
from edgec.compiler.compile import compile_module
from edgec.compiler.passbase import Options
from edgec.compiler.passes.keep_positions import keep_positions
from edgec.compiler.recompute import forward_nodes, kept_values
from edgec.compiler.train import Train
from edgec.graph.types import DType
from edgec.tools.testing.pass_check import check_pass
from edgec.tools.testing.plan_interp import PlanInterpreter
from edgec.tools.testing.programs import feeds
from edgec.tools.testing.reference_backend import SCALAR_TARGET, VECTOR_TARGET, ReferenceBackend
from edgec.tools.testing.train_cases import CASES

PROGRAM = """
graph train {
  input %x: f32[1,2,4,4]
  param %b: f32[2,1,1] trainable
  scalar %lr: f32[]
  %h: f32[1,2,4,4] = add(%x, %b)
  FORWARD
  %loss: f32[] = reduce_sum(%y) {axes=(0,1,2,3)}
  %up: f32[1,2,2,2] = broadcast_to(%loss) {shape=(1,2,2,2)}
  BEHIND
  %d: f32[1,2,4,4] = max_pool2d_grad(%up, %positions) {kernel_size=(2,2), strides=(2,2), input_size=(4,4)}
  %g: f32[2] = reduce_sum(%d) {axes=(0,2,3)}
  %gb: f32[2,1,1] = reshape(%g) {shape=(2,1,1)}
  %new: f32[2,1,1] = sgd_update(%b, %gb, %lr)
  output "loss" = %loss
  update %b = %new
  loss "loss"
}
"""
POOL = "%y: f32[1,2,2,2] = max_pool2d(%h) {kernel_size=(2,2), strides=(2,2)}"
BOTH = "{results} = max_pool2d_positions(%h) {{kernel_size=(2,2), strides=(2,2)}}"


def test_the_forward_pool_hands_out_positions() -> None:
    behind = BOTH.format(results="%top: f32[1,2,2,2], %positions: u8[1,2,2,2]")
    before = PROGRAM.replace("FORWARD", POOL).replace("BEHIND", behind)
    ahead = BOTH.format(results="%y: f32[1,2,2,2], %positions: u8[1,2,2,2]")
    after = PROGRAM.replace("FORWARD", ahead).replace("BEHIND", "")
    check_pass(keep_positions, before, after, Options())


def test_a_pool_of_other_windows_hands_out_none() -> None:
    behind = BOTH.format(results="%top: f32[1,2,2,2], %positions: u8[1,2,2,2]")
    before = PROGRAM.replace("FORWARD", POOL.replace("strides=(2,2)", "strides=(2,2), pads=(0,0,1,1)"))
    before = before.replace("BEHIND", behind)
    check_pass(keep_positions, before, before, Options())


@pytest.mark.parametrize("target", [SCALAR_TARGET, VECTOR_TARGET], ids=lambda target: target.name)
def test_positions_replace_what_was_pooled(target: Target) -> None:
    twins = CASES["small_cnn"]()
    found = []
    for skip in (frozenset(), frozenset({"keep_positions"})):
        options = Options(train=Train(batch=3), skip=skip)
        result = compile_module(twins.module.clone(), [ReferenceBackend(target)], options)
        machine = PlanInterpreter(result.artifact, result.images[0])
        machine.run("train", feeds(result.module.programs["train"]) | {"lr": np.float32(0.1)})
        graph = result.module.programs["train"]
        kept = kept_values(graph, forward_nodes(graph))
        pools = [node for node in graph.nodes if node.op.name == "max_pool2d_grad"]
        names = sorted(leaf.name for leaf in graph.updates)
        found.append((pools, kept, [machine.tensor(name) for name in names]))
    (pools, kept, got), (_, whole, wanted) = found
    assert pools and {node.inputs[1] for node in pools} <= set(kept)
    assert all(node.inputs[1].type.dtype is DType.U8 for node in pools)
    assert sum(v.type.bytes for v in kept) < 0.8 * sum(v.type.bytes for v in whole)
    for left, right in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(left, right)
