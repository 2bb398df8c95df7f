"""The published schemes of the Tiny Training Engine, as files: their bytes and multiply-adds, and the derived steps'.

Figures from `mcu_ir_gen.py` of its code and the paper's tables (arXiv:2206.15472); schemes/ has the files.
"""

from pathlib import Path

import pytest

from edgec.compiler.passbase import Options
from edgec.compiler.pipeline import transform_module
from edgec.compiler.sparse.footprint import ElementBytes, footprint, step_macs
from edgec.compiler.sparse.scheme import Scheme, WeightRule
from edgec.compiler.train import Train
from edgec.graph.errors import UserError
from edgec.graph.ir import Graph, Role
from edgec.tools.testing.tiny_nets import STRUCTURES, tiny_net

SCHEMES = Path(__file__).parent / "schemes"
# By label in KB: multiply-adds of a step over those of its forward part.
PUBLISHED = {
    "mbv2": {49: 1.28, 73: 1.37, 99: 1.47, 123: 1.55, 138: 1.60},
    "mcunet": {49: 1.44, 74: 1.50, 99: 1.55, 124: 1.59, 148: 1.60},
    "proxyless": {49: 1.32, 74: 1.42, 98: 1.40, 120: 1.48, 148: 1.63},
}
# Multiply-adds and parameters in millions without the classifier, KB of the full update, its steps' ratio.
WHOLE = {"mbv2": (16.6, 0.244, 1306, 2.89), "mcunet": (22.5, 0.469, 1400, 2.92), "proxyless": (18.6, 0.326, 1211, 2.90)}
# Activations, masks and parameters in KB of some schemes, which the sums above could hide.
ROWS = {
    "mbv2-49kb": (5.84, 9.86, 34.10),
    "mbv2-73kb": (7.08, 14.23, 52.56),
    "mbv2-99kb": (10.53, 17.98, 70.89),
    "mcunet-49kb": (3.91, 16.09, 29.75),
    "mcunet-74kb": (10.16, 17.34, 47.31),
    "mcunet-99kb": (12.22, 17.66, 69.97),
}
CASES = [(name, label, ratio) for name, rows in PUBLISHED.items() for label, ratio in rows.items()]


def net(name: str) -> Graph:
    return tiny_net(name, classes=2).programs["infer"]


def scheme(name: str) -> Scheme:
    return Scheme.from_toml(SCHEMES / f"{name}.toml")


@pytest.mark.parametrize(("name", "label", "ratio"), CASES)
def test_the_published_schemes_have_their_labels(name: str, label: int, ratio: float) -> None:
    graph, update = net(name), scheme(f"{name}-{label}kb")
    bytes_ = footprint(graph, update)
    assert int(bytes_.bytes / 1024) == label
    assert step_macs(graph, update).ratio == pytest.approx(ratio, abs=0.005)
    if wanted := ROWS.get(f"{name}-{label}kb"):
        parts = (bytes_.activation_bytes, bytes_.mask_bytes, bytes_.parameter_bytes)
        assert [part / 1024 for part in parts] == pytest.approx(wanted, abs=0.005)


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_full_update(name: str) -> None:
    graph = net(name)
    macs, parameters, label, ratio = WHOLE[name]
    step = step_macs(graph, Scheme("full"))
    assert step.forward / 1e6 == pytest.approx(macs, abs=0.05)
    assert sum(p.type.size for p in graph.by_role(Role.PARAM)) / 1e6 == pytest.approx(parameters, abs=0.001)
    assert round(footprint(graph, Scheme("full")).bytes / 1024) == label
    assert step.ratio == pytest.approx(ratio, abs=0.005)


def test_the_last_twelve_layers() -> None:
    assert footprint(net("mcunet"), scheme("mcunet-last12")).bytes / 1024 == pytest.approx(448.05, abs=0.005)


@pytest.mark.parametrize("case", ["mbv2-49kb", "mcunet-124kb", "proxyless-49kb"])
def test_steps_that_are_derived_have_these_multiply_adds(case: str) -> None:
    """Of convolutions and products, in the program that is compiled: not one more, nor less."""
    name = case.partition("-")[0]
    module = tiny_net(name, classes=2, size=64)
    expected = step_macs(module.programs["infer"], scheme(case))
    transform_module(module, Options(train=Train(update=scheme(case))))
    macs = dict.fromkeys(("conv2d", "conv2d_input_grad", "conv2d_weight_grad", "matmul"), 0)
    for node in module.programs["train"].nodes:
        if node.op.name in macs:
            cost = node.op.cost(tuple(v.type for v in node.inputs), tuple(v.type for v in node.outputs))
            macs[node.op.name] += cost.macs
    head = module.programs["infer"].nodes[-2]
    assert head.op.name == "matmul"
    assert sum(macs.values()) == expected.forward + expected.input_gradients + expected.weight_gradients
    assert macs["conv2d_weight_grad"] > 0 and macs["conv2d_input_grad"] > 0


def test_other_element_sizes() -> None:
    graph, update = net("mbv2"), scheme("mbv2-49kb")
    int8, f32 = footprint(graph, update), footprint(graph, update, ElementBytes(4, 4, 4))
    assert f32.activation_bytes == 4 * int8.activation_bytes and f32.mask_bytes == int8.mask_bytes
    assert int8.parameter_bytes < f32.parameter_bytes < 4 * int8.parameter_bytes


def test_a_scheme_of_another_model_is_refused() -> None:
    with pytest.raises(UserError, match="no parameter that can be trained is called `conv51.weight`") as caught:
        footprint(net("mbv2"), scheme("proxyless-49kb"))
    assert caught.value.code == "E0302" and "conv5" in caught.value.hint


def test_ratios_of_0_and_1() -> None:
    graph = net("mbv2")
    nothing = Scheme("full", weights=(WeightRule("conv*", 0.0),))
    assert footprint(graph, nothing) == footprint(graph, Scheme("head"))
    assert footprint(graph, Scheme("full", weights=(WeightRule("*", 1.0),))) == footprint(graph, Scheme("full"))
