"""distribute_slices: gradients of slices equal slices of gradients, and are computed from slices alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.compiler.passbase import Options
from edgec.compiler.passes.distribute_slices import distribute_slices
from edgec.compiler.pipeline import transform_module
from edgec.compiler.recompute import forward_nodes, kept_values
from edgec.compiler.sparse.scheme import Scheme, WeightRule
from edgec.compiler.train import Train
from edgec.graph.interp import run
from edgec.graph.ir import Graph, Module
from edgec.graph.parse import parse_module
from edgec.tools.testing.pass_check import check_same_meaning
from edgec.tools.testing.programs import initialise
from edgec.tools.testing.train_cases import CASES
from edgec.tools.testing.twins import Twins

BATCH = 3
RATIOS = (0.125, 0.3, 0.5, 0.75)


def trained(twins: Twins, update: str | Scheme, **train: object) -> Module:
    module = twins.module.clone()
    transform_module(module, Options(train=Train(batch=BATCH, update=update, **train)))
    return module


def weights(twins: Twins) -> list[str]:
    return [name for name, array in twins.weights().items() if array.ndim > 1]


def steps(module: Module, feeds: dict[str, np.ndarray]) -> tuple[float, dict[str, np.ndarray]]:
    """Loss and gradients, the latter as the step of a learning rate of 1."""
    graph = module.programs["train"]
    results = run(graph, feeds | {"lr": np.float32(1)})
    return float(results.outputs["loss"]), {
        name: graph.leaves[name].data - new for name, new in results.updates.items()
    }


def assert_slices_of(sparse: Module, dense: Module, feeds: dict[str, np.ndarray], tolerance: float) -> int:
    """Every gradient of `sparse` is that of `dense`, on the channels that are kept. How many are of slices."""
    (loss, ours), (dense_loss, theirs) = steps(sparse, feeds), steps(dense, feeds)
    assert abs(loss - dense_loss) <= tolerance
    slices = 0  # with something to compare
    for name, gradient in ours.items():
        source, _, part = name.partition("/")
        wanted = theirs[source]
        if part:
            axis = sparse.parts[source].axis
            wanted = np.take(wanted, range(gradient.shape[axis]), axis)
            slices += bool(np.abs(wanted).max() > 0)
        np.testing.assert_allclose(gradient, wanted, rtol=0, atol=tolerance, err_msg=name)
    return slices


@pytest.mark.parametrize(("name", "batch_norm"), [*((name, "frozen") for name in CASES), ("separable_net", "train")])
def test_gradients_of_slices_are_slices_of_gradients(name: str, batch_norm: str) -> None:
    """In double precision, on models of every kind, with other ratios for neighbours."""
    twins = CASES[name]()
    rules = tuple(WeightRule(weight, RATIOS[i % len(RATIOS)]) for i, weight in enumerate(weights(twins)))
    sparse = trained(twins, Scheme("full", weights=rules), batch_norm=batch_norm)
    dense = trained(twins, "full", batch_norm=batch_norm)
    x, labels = twins.batch(BATCH)
    assert assert_slices_of(sparse, dense, {"x": x, "labels": labels}, 1e-12) >= 2
    alone = {"x": x[:1]}
    outputs = [run(module.programs["infer"], alone).outputs["y"] for module in (sparse, dense)]
    np.testing.assert_allclose(*outputs, rtol=0, atol=1e-12)


@settings(max_examples=6)
@given(st.data())
def test_any_ratios_of_some_layers(data: st.DataObject) -> None:
    twins = CASES["separable_net"](data.draw(st.integers(0, 3)))
    ratios = st.sampled_from([0.0, 0.01, 0.2, 0.5, 0.9, 1.0])
    rules = tuple(WeightRule(name, data.draw(ratios, name)) for name in weights(twins))
    base = data.draw(st.sampled_from(["head", "bias", "last:3", "full"]))
    scheme = Scheme(base, weights=(*rules, WeightRule("fc2.bias", 1)))
    x, labels = twins.batch(BATCH)
    assert_slices_of(trained(twins, scheme), trained(twins, "full"), {"x": x, "labels": labels}, 1e-12)


def test_a_ratio_of_1_is_the_full_update() -> None:
    twins = CASES["separable_net"]()
    whole, full = trained(twins, Scheme("full", weights=(WeightRule("*", 1.0),))), trained(twins, "full")
    ops = [[node.op for node in module.programs["train"].nodes] for module in (whole, full)]
    assert ops[0] == ops[1] and not whole.parts


CONV = """
graph infer {
  input %x: f32[1,8,4,4]
  param %a.w: f32[16,8,3,3]
  param %b.w: f32[16,1,3,3]
  param %c.w: f32[16,16,1,1]
  param %fc.w: f32[16,4]
  %a: f32[1,16,4,4] = conv2d(%x, %a.w) {pads=(1,1,1,1)}
  %a.r: f32[1,16,4,4] = relu(%a)
  %b: f32[1,16,4,4] = conv2d(%a.r, %b.w) {pads=(1,1,1,1), groups=16}
  %b.r: f32[1,16,4,4] = relu(%b)
  %c: f32[1,16,4,4] = conv2d(%b.r, %c.w)
  %c.r: f32[1,16,4,4] = relu(%c)
  %m: f32[1,16] = reduce_mean(%c.r) {axes=(2,3)}
  %y: f32[1,4] = matmul(%m, %fc.w)
  output "y" = %y
}
"""


def step_of(update: str | Scheme) -> Graph:
    module = initialise(parse_module(CONV))
    transform_module(module, Options(train=Train(update=update)))
    return module.programs["train"]


def macs(graph: Graph, op: str) -> int:
    costs = (
        n.op.cost(tuple(v.type for v in n.inputs), tuple(v.type for v in n.outputs))
        for n in graph.nodes
        if n.op.name == op
    )
    return sum(cost.macs for cost in costs)


@pytest.mark.parametrize(("name", "full"), [("a.w", 16 * 8 * 9 * 16), ("b.w", 16 * 9 * 16), ("c.w", 16 * 16 * 16)])
def test_weight_gradients_shrink_with_the_ratio(name: str, full: int) -> None:
    for ratio in (0.25, 0.5, 1.0):
        graph = step_of(Scheme("none", weights=(WeightRule(name, ratio),)))
        assert macs(graph, "conv2d_weight_grad") == full * ratio


def test_forward_work_does_not_grow() -> None:
    """Nor does that of the gradients of activations."""
    whole = step_of(Scheme("none", weights=(WeightRule("*.w", 1.0),)))
    parts = step_of(Scheme("none", weights=(WeightRule("*.w", 0.5),)))
    for op in ("conv2d", "conv2d_input_grad"):
        assert macs(parts, op) == macs(whole, op) > 0


def test_kept_are_the_channels_that_are_trained() -> None:
    """Of what enters a layer; where a relu is to be passed back, its bits come on top."""
    graph = step_of(Scheme("none", weights=(WeightRule("c.w", 0.25),)))
    kept = {value.type.shape for value in kept_values(graph, forward_nodes(graph)) if value.type.rank == 4}
    assert (1, 4, 4, 4) in kept and (1, 16, 4, 4) not in kept
    assert all(
        value.type.dtype.value == "u8" or value.type.shape[1] <= 4
        for value in kept_values(graph, forward_nodes(graph))
        if value.type.rank == 4
    )


def test_the_backward_part_ends_at_the_first_layer_that_is_trained() -> None:
    graph = step_of(Scheme("none", weights=(WeightRule("c.w", 0.25),)))
    assert macs(graph, "conv2d_input_grad") == 0


def test_large_weights_are_taken_apart_and_small_ones_joined() -> None:
    def ops(name: str) -> list[str]:
        return [node.op.name for node in step_of(Scheme("none", weights=(WeightRule(name, 0.5),))).nodes]

    assert ops("a.w").count("conv2d") == 4 and "concat" not in ops("a.w")
    assert ops("b.w").count("conv2d") == 3 and "concat" in ops("b.w")


def test_integers_to_the_bit() -> None:
    """Sums of whole numbers are the same in any order: not one element differs."""
    module = initialise(parse_module(CONV))
    for leaf in module.programs["infer"].leaves.values():
        if leaf.data is not None:
            leaf.data = np.round(leaf.data).astype(np.float32)
    text = "sum_mse:y"
    feeds = {"x": np.arange(128, dtype=np.float32).reshape(1, 8, 4, 4) % 3 - 1, "labels.y": np.ones((1, 4), np.float32)}
    results = []
    for update in ("full", Scheme("full", weights=(WeightRule("*.w", 0.5),))):
        copy = module.clone()
        transform_module(copy, Options(train=Train(update=update, loss=text)))
        results.append((copy, run(copy.programs["train"], feeds | {"lr": np.float32(1)})))
    (dense, full), (sparse, part) = results
    assert full.outputs["loss"] == part.outputs["loss"]
    for name, parts in sparse.parts.items():
        new = part.updates[f"{name}/slice"]
        wanted = np.take(full.updates[name], range(new.shape[parts.axis]), parts.axis)
        assert np.any(
            wanted != np.take(dense.programs["train"].leaves[name].data, range(new.shape[parts.axis]), parts.axis)
        )
        np.testing.assert_array_equal(new, wanted)


def test_without_slices_nothing_happens() -> None:
    module = initialise(parse_module(CONV))
    before = module.clone()
    assert not distribute_slices(module, Options())
    check_same_meaning(before, module, rtol=0)
