"""Sparse gradients equal dense ones on the kept slices, for drawn nets and schemes: whole numbers to the bit, others to
1e-12. Layers are plain, grouped and depthwise convolutions and products, of odd channels too; weights may be tied.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.compiler.passbase import Options
from edgec.compiler.pipeline import transform_module
from edgec.compiler.sparse.scheme import Scheme, WeightRule
from edgec.compiler.train import Train
from edgec.graph.interp import run
from edgec.graph.ir import Module
from edgec.tools.testing.layer_nets import KINDS, SIDE, Layer, fill, module_of

SKIP = frozenset({"narrow_doubles"})


@st.composite
def drawn_layers(draw: st.DrawFn) -> list[Layer]:
    channels, layers = draw(st.sampled_from([3, 5, 6, 9])), []
    for _ in range(draw(st.integers(1, 3))):
        kinds = [kind for kind in KINDS if kind != "grouped" or channels % 3 == 0]
        kind = draw(st.sampled_from(kinds))
        outputs = channels if kind in ("depthwise", "tied") else 3 * draw(st.sampled_from([1, 2, 3]))
        layers.append(Layer(kind, channels, outputs))
        channels = outputs
    return layers


@st.composite
def drawn_schemes(draw: st.DrawFn, layers: list[Layer]) -> Scheme:
    ratios = st.sampled_from([0.0, 0.01, 0.2, 0.5, 0.9, 1.0])
    rules = [WeightRule(f"w{i}", draw(ratios)) for i in range(len(layers))]
    return Scheme("none", weights=(*rules, WeightRule("fc", draw(ratios.filter(bool)))))


def step(module: Module, update: str | Scheme, x: np.ndarray) -> tuple[Module, np.ndarray, dict[str, np.ndarray]]:
    """The transformed module, the loss, and what a step of rate 1 subtracts from each parameter."""
    module = module.clone()
    transform_module(module, Options(train=Train(update=update, loss="sum_mse:y"), skip=SKIP))
    graph = module.programs["train"]
    done = run(graph, {"x": x, "labels.y": np.ones((1, 4)), "lr": np.float32(1)})
    return module, done.outputs["loss"], {name: graph.leaves[name].data - new for name, new in done.updates.items()}


def compare(module: Module, scheme: Scheme, x: np.ndarray, tolerance: float) -> None:
    _, dense_loss, dense = step(module, "full", x)
    sparse_module, loss, sparse = step(module, scheme, x)
    assert abs(loss - dense_loss) <= tolerance * max(1.0, abs(dense_loss))
    expected = {rule.pattern for rule in scheme.weights if rule.ratio}
    assert {name.removesuffix("/slice") for name in sparse} == expected
    for name, gradient in sparse.items():
        source = name.removesuffix("/slice")
        wanted = dense[source]
        if name != source:
            axis = sparse_module.parts[source].axis
            assert 0 < gradient.shape[axis] < wanted.shape[axis]
            wanted = np.take(wanted, range(gradient.shape[axis]), axis)
        scale = max(1.0, np.abs(wanted).max())
        assert np.abs(gradient - wanted).max() <= tolerance * scale, name


@settings(max_examples=40)
@given(st.data())
def test_whole_numbers_to_the_bit(data: st.DataObject) -> None:
    """Their sums are the same in any order, and far from 2^53."""
    layers = data.draw(drawn_layers())
    module, rng = module_of(layers), np.random.default_rng(data.draw(st.integers(0, 9)))
    fill(module, rng, whole=True)
    x = rng.integers(-2, 3, (1, layers[0].inputs, SIDE, SIDE)).astype(np.float64)
    compare(module, data.draw(drawn_schemes(layers)), x, 0.0)


@settings(max_examples=40)
@given(st.data())
def test_others_in_double_precision(data: st.DataObject) -> None:
    layers = data.draw(drawn_layers())
    module, rng = module_of(layers), np.random.default_rng(data.draw(st.integers(0, 9)))
    fill(module, rng, whole=False)
    x = rng.standard_normal((1, layers[0].inputs, SIDE, SIDE))
    compare(module, data.draw(drawn_schemes(layers)), x, 1e-12)
