"""order_channels: the channels with the largest weights come first, everywhere at once, and nothing else changes."""

import numpy as np
import pytest

from edgec.compiler.passbase import Options
from edgec.compiler.passes.mark_trainable import mark_trainable
from edgec.compiler.passes.order_channels import order_channels
from edgec.compiler.pipeline import transform_module
from edgec.compiler.sparse.scheme import Scheme, WeightRule
from edgec.compiler.train import Train
from edgec.graph.interp import run
from edgec.graph.ir import Module, Role
from edgec.graph.parse import parse_module
from edgec.runtime.parts import read_parts
from edgec.tools.testing.pass_check import check_same_meaning
from edgec.tools.testing.programs import initialise
from edgec.tools.testing.tiny_nets import tiny_net
from edgec.tools.testing.train_cases import CASES

BATCH = 3


def scheme(*names: str, ratio: float = 0.25, base: str = "none") -> Scheme:
    return Scheme(base, channels="largest", weights=tuple(WeightRule(name, ratio) for name in names))


def ordered(module: Module, update: Scheme) -> tuple[Module, bool]:
    module = module.clone()
    options = Options(train=Train(update=update))
    mark_trainable(module, options)
    return module, order_channels(module, options)


def energy(array: np.ndarray, axis: int) -> np.ndarray:
    return np.square(array).sum(tuple(a for a in range(array.ndim) if a != axis))


@pytest.mark.parametrize("weight", ["excite.weight", "fc2.weight"])
def test_the_largest_channels_come_first_and_the_model_means_the_same(weight: str) -> None:
    module = CASES["separable_net"]().module
    after, changed = ordered(module, scheme(weight))
    assert changed
    before, now = (m.programs["infer"].leaves[weight].data for m in (module, after))
    np.testing.assert_allclose(energy(now, 1), np.sort(energy(before, 1))[::-1])
    check_same_meaning(module, after, rtol=1e-12)
    for name, parts in after.parts.items():
        restored = after.programs["infer"].leaves[name].data
        for axis, order in enumerate(parts.orders):
            if order is not None:
                restored = np.take(restored, np.argsort(order), axis)
        np.testing.assert_array_equal(restored, module.programs["infer"].leaves[name].data)


def test_blocks_of_a_residual_stage_share_one_order() -> None:
    """Their channels are ranked by the weights of both; all that are added to one another move along."""
    module = tiny_net("mbv2", size=32)
    after, _ = ordered(module, scheme("conv42.weight", "conv45.weight"))
    moved = {name: [axis for axis, order in enumerate(p.orders) if order] for name, p in after.parts.items()}
    producers = {f"conv{n}.{part}": [0] for n in (41, 44, 47) for part in ("weight", "bias")}
    assert moved == producers | {f"conv{n}.weight": [1] for n in (42, 45, 48)}
    total = sum(energy(module.programs["infer"].leaves[f"conv{n}.weight"].data, 1) for n in (42, 45))
    assert after.parts["conv42.weight"].orders[1] == tuple(np.argsort(-total, kind="stable"))
    check_same_meaning(module, after, rtol=1e-4)


@pytest.mark.parametrize("weight", ["stem.weight", "pw.weight"])
def test_some_channels_stay_in_their_order(weight: str) -> None:
    """Those of an image; those that a depthwise convolution with two results for each channel reads."""
    module = CASES["separable_net"]().module
    after, changed = ordered(module, scheme(weight))
    assert not changed and not after.parts


@pytest.mark.parametrize("name", CASES)
def test_steps_in_another_order_are_the_same_steps(name: str) -> None:
    """Whole and cut weights of every kind of model, put back into the order of the source."""
    twins = CASES[name]()
    names = [weight for weight, array in twins.weights().items() if array.ndim > 1]
    x, labels = twins.batch(BATCH)
    feeds = {"x": x, "labels": labels, "lr": np.float32(1)}
    full, part = twins.module.clone(), twins.module.clone()
    transform_module(full, Options(train=Train(batch=BATCH)))
    transform_module(part, Options(train=Train(batch=BATCH, update=scheme(*names, ratio=0.4, base="full"))))
    dense, sparse = (run(module.programs["train"], feeds) for module in (full, part))
    assert abs(dense.outputs["loss"] - sparse.outputs["loss"]) < 1e-12
    records = read_parts({"parts": {name: parts.to_json() for name, parts in part.parts.items()}})
    leaves = part.programs["train"].leaves
    for weight, record in records.items():
        initial = full.programs["train"].leaves.get(weight)
        if initial is None or initial not in full.programs["train"].updates:
            continue  # statistics, which a norm has folded

        def now(piece: str, weight: str = weight) -> np.ndarray:
            return sparse.updates.get(piece, part.parts[weight].data.get(piece))

        def marked(piece: str, weight: str = weight) -> np.ndarray:
            kept = piece in sparse.updates
            return np.full(part.parts[weight].data[piece].shape, kept)

        trained = record.joined(marked)
        wanted = np.where(trained, dense.updates[weight], initial.data)
        np.testing.assert_allclose(record.joined(now), wanted, rtol=0, atol=1e-11, err_msg=weight)
    assert {leaf.name for leaf in leaves.values() if leaf.role is Role.PARAM}


TOKENS = """
graph infer {
  input %ids: i64[1,3]
  param %table: f32[7,6]
  param %first: f32[1,1,6]
  param %gamma: f32[6]
  param %w: f32[6,8]
  param %v: f32[8,5]
  %e: f32[1,3,6] = gather(%table, %ids) {axis=0}
  %t: f32[1,4,6] = concat(%first, %e) {axis=1}
  %n: f32[1,4,6], %n.mean: f32[1,4], %n.inv: f32[1,4] = layer_norm(%t, %gamma) {axis=2, epsilon=1e-05}
  %a: f32[1,4,8] = matmul(%n, %w)
  %p: f32[1,4,8] = softmax(%a) {axis=2}
  %c: f32[1,1,8] = slice(%p) {starts=(0,0,0), ends=(1,1,8), steps=(1,1,1)}
  %r: f32[1,8] = reshape(%c) {shape=(1,8)}
  %y: f32[1,5] = matmul(%r, %v)
  output "y" = %y
}
"""


def test_channels_of_tokens() -> None:
    """Through a lookup, a join of tokens, a norm, a softmax and a choice among tokens."""
    module = initialise(parse_module(TOKENS))
    after, changed = ordered(module, scheme("w", "v", ratio=0.5))
    moved = {name: [axis for axis, order in enumerate(p.orders) if order] for name, p in after.parts.items()}
    assert changed and moved == {"table": [1], "first": [2], "gamma": [0], "w": [0, 1], "v": [0]}
    check_same_meaning(module, after)


def test_first_channels_need_no_order() -> None:
    module = CASES["separable_net"]().module
    _, changed = ordered(module, Scheme("none", weights=(WeightRule("pw.weight", 0.5),)))
    assert not changed
