"""append_adapters: adapters start as nothing, and have the gradients that the chain rule gives them."""

import numpy as np
import pytest

from edgec.compiler.passbase import Options
from edgec.compiler.passes.append_adapters import append_adapters
from edgec.compiler.pipeline import transform_module
from edgec.compiler.sparse.scheme import Lora, Scheme, WeightRule
from edgec.compiler.train import Train
from edgec.graph.errors import UserError
from edgec.graph.interp import run
from edgec.graph.ir import Module, Role
from edgec.tools.testing.train_cases import CASES
from edgec.tools.testing.twins import Twins

BATCH = 3
SCALE = 1.5
EVERYWHERE = {"separable_net": 4, "sentence_encoder": 4}  # by default, and how many


def adapted(twins: Twins, lora: Lora, base: str = "head") -> Module:
    module = twins.module.clone()
    transform_module(module, Options(train=Train(batch=BATCH, update=Scheme(base, lora=lora))))
    return module


def gradients(module: Module, feeds: dict[str, np.ndarray]) -> tuple[float, dict[str, np.ndarray]]:
    graph = module.programs["train"]
    results = run(graph, feeds | {"lr": np.float32(1)})
    return float(results.outputs["loss"]), {n: graph.leaves[n].data - new for n, new in results.updates.items()}


def draw_adapters(module: Module) -> None:
    """Other values than 0 for B, the same in every program."""
    rng, drawn = np.random.default_rng(1), {}
    for graph in module.programs.values():
        for leaf in graph.by_role(Role.PARAM):
            if leaf.name.endswith("/lora_B"):
                leaf.data = drawn.setdefault(leaf.name, rng.standard_normal(leaf.type.shape))


def merged(module: Module, name: str) -> np.ndarray:
    left, right, scale = module.parts[name].adapter
    leaves = module.programs["train"].leaves
    product = np.squeeze(leaves[left].data) @ np.squeeze(leaves[right].data)
    return leaves[name].data + scale * product.reshape(leaves[name].type.shape)


@pytest.mark.parametrize("name", EVERYWHERE)
def test_adapters_start_as_nothing(name: str) -> None:
    twins = CASES[name]()
    lora, head = adapted(twins, Lora(2)), twins.module.clone()
    transform_module(head, Options(train=Train(batch=BATCH, update="head")))
    assert len(lora.parts) == EVERYWHERE[name]
    x, labels = twins.batch(BATCH)
    outputs = [run(module.programs["eval"], {"x": x, "labels": labels}).outputs for module in (lora, head)]
    for key in outputs[1]:
        np.testing.assert_allclose(outputs[0][key], outputs[1][key], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", EVERYWHERE)
def test_gradients_are_those_of_the_merged_weight(name: str) -> None:
    """dA = s B' dW and dB = s dW A', where dW is the gradient of w + s B A: in either order of the weight's axes."""
    twins = CASES[name]()
    module = adapted(twins, Lora(2, alpha=2 * SCALE))
    draw_adapters(module)
    dense = twins.module.clone()
    for weight in module.parts:
        dense.programs["infer"].leaves[weight].data = merged(module, weight)
    transform_module(dense, Options(train=Train(batch=BATCH)))
    x, labels = twins.batch(BATCH)
    (loss, ours), (dense_loss, theirs) = (gradients(m, {"x": x, "labels": labels}) for m in (module, dense))
    assert abs(loss - dense_loss) < 1e-12 and not set(ours) & set(module.parts)
    leaves = module.programs["train"].leaves
    for weight, parts in module.parts.items():
        left, right, scale = parts.adapter
        assert scale == SCALE
        whole = np.squeeze(theirs[weight])
        wanted = {left: whole @ np.squeeze(leaves[right].data).T, right: np.squeeze(leaves[left].data).T @ whole}
        for matrix, gradient in wanted.items():
            assert np.abs(gradient).max() > 1e-6
            np.testing.assert_allclose(np.squeeze(ours[matrix]), scale * gradient, rtol=0, atol=1e-11, err_msg=matrix)


def test_no_gradient_of_an_adapted_weight_is_computed() -> None:
    module = adapted(CASES["separable_net"](), Lora(2, layers=("pw.weight", "fc1.weight")), base="none")
    graph = module.programs["train"]
    shapes = {node.output.type.shape for node in graph.nodes if node.op.name == "conv2d_weight_grad"}
    assert shapes == {(2, 8, 1, 1), (8, 2, 1, 1)}
    names = {leaf.name for leaf in graph.updates}
    assert names == {f"{w}.weight/lora_{m}" for w in ("pw", "fc1") for m in "AB"}


def test_a_is_drawn_by_seed_within_its_bounds() -> None:
    def drawn(seed: int) -> np.ndarray:
        lora = Lora(3, layers=("fc1.weight",), seed=seed)
        return adapted(CASES["separable_net"](), lora).programs["infer"].leaves["fc1.weight/lora_A"].data

    a = drawn(0)
    assert a.shape == (3, 16) and np.abs(a).max() <= 0.25 and np.abs(a).max() > 0.2
    np.testing.assert_array_equal(a, drawn(0))
    assert (a != drawn(1)).all()


@pytest.mark.parametrize(
    ("scheme", "message", "hint"),
    [
        (Scheme(lora=Lora(2, layers=("stem.weight",))), "is called `stem.weight`", "pw.weight"),
        (Scheme(lora=Lora(2, layers=("pw.wieght",))), "is called `pw.wieght`", "did you mean 'pw.weight'"),
        (Scheme("full", lora=Lora(2, layers=("pw.weight",))), "is trained besides", '"pw.weight" = 0'),
    ],
)
def test_what_cannot_be_adapted(scheme: Scheme, message: str, hint: str) -> None:
    """A convolution of 3x3, a typing error, a weight that is trained anyway."""
    with pytest.raises(UserError, match=message) as caught:
        transform_module(CASES["separable_net"]().module, Options(train=Train(update=scheme)))
    assert caught.value.code == "E0302" and hint in caught.value.hint


def test_nothing_to_adapt_by_default() -> None:
    with pytest.raises(UserError) as caught:
        transform_module(CASES["separable_net"]().module, Options(train=Train(update=Scheme("full", lora=Lora(2)))))
    assert caught.value.code == "E0303"


def test_frozen_by_a_rule_and_adapted() -> None:
    rules = (WeightRule("pw.weight", 0),)
    scheme = Scheme("full", weights=rules, lora=Lora(2, layers=("pw.weight",)))
    module = CASES["separable_net"]().module
    transform_module(module, Options(train=Train(update=scheme)))
    updated = {leaf.name for leaf in module.programs["train"].updates}
    assert "pw.weight" not in updated and "pw.weight/lora_B" in updated and "fc1.weight" in updated


def test_without_lora_nothing_happens() -> None:
    assert not append_adapters(CASES["separable_net"]().module, Options(train=Train()))
