"""mask_classes: scores of classes that are not live take part in nothing; a model with all live is as it was."""

import numpy as np
import pytest
import torch

from edgec.compiler.adapt import NewHead
from edgec.compiler.passbase import Options
from edgec.compiler.passes.mask_classes import live_classes, mask_classes
from edgec.compiler.pipeline import transform_module
from edgec.compiler.train import Train
from edgec.graph.errors import UserError
from edgec.graph.interp import run
from edgec.graph.ir import Bounds
from edgec.graph.parse import parse_module
from edgec.tools.testing.pass_check import check_becomes
from edgec.tools.testing.programs import initialise

OPTIONS = Options(new_head=NewHead(3))
MODEL = """
graph infer {{
  input %x: f32[4,3]
  param %fc.w: f32[{n},3]
  param %fc.b: f32[{n}]
  %m: f32[4,{n}] = matmul(%x, %fc.w) {{transpose_b=true}} @"fc"
  %scores: f32[4,{n}] = add(%m, %fc.b) @"fc"
  %p: f32[4,{n}] = softmax(%scores) {{axis=1}}
  output "scores" = %scores
  output "p" = %p
}}
"""


def test_behind_the_bias_of_a_dense_layer() -> None:
    check_becomes(
        mask_classes,
        MODEL.format(n=3),
        """
        graph infer {
          input %x: f32[4,3]
          param %fc.w: f32[3,3]
          param %fc.b: f32[3]
          scalar %classes: i32[] within (1,3)
          constant %class.numbers: f32[3] = [0.0, 1.0, 2.0]
          constant %class.far: f32[] = [-10000.0]
          %m: f32[4,3] = matmul(%x, %fc.w) {transpose_b=true} @"fc"
          %scores: f32[4,3] = add(%m, %fc.b) @"fc"
          %live: f32[] = cast(%classes) {to="f32"}
          %left: f32[3] = sub(%live, %class.numbers)
          %keep: f32[3] = clip(%left) {low=0.0, high=1.0}
          %far: f32[3] = mul(%keep, %class.far)
          %offset: f32[3] = sub(%class.far, %far)
          %kept: f32[4,3] = mul(%scores, %keep)
          %masked: f32[4,3] = add(%kept, %offset)
          %p: f32[4,3] = softmax(%masked) {axis=1}
          output "scores" = %masked
          output "p" = %p
        }
        """,
        OPTIONS,
    )


def test_without_a_new_head_nothing_happens() -> None:
    check_becomes(mask_classes, MODEL.format(n=3), MODEL.format(n=3), Options())


def test_a_second_run_finds_nothing_to_do() -> None:
    module = initialise(parse_module(MODEL.format(n=3)))
    assert mask_classes(module, OPTIONS)
    assert not mask_classes(module, OPTIONS)


def test_the_name_is_ours() -> None:
    text = MODEL.format(n=3).replace("%x", "%classes")
    with pytest.raises(UserError, match="`classes` is the name of the number of live classes"):
        mask_classes(initialise(parse_module(text)), OPTIONS)


@pytest.mark.parametrize("classes", [1, 2, 5, 6])
def test_the_head_learns_as_torchs_linear_with_the_live_classes_alone(classes: int) -> None:
    """Loss, probabilities, and one step in float64; weights of other classes stay to the bit."""
    options = Options(new_head=NewHead(6, seed=2), train=Train(update="head"))
    module = initialise(parse_module(MODEL.format(n=9)))
    assert transform_module(module, options)
    train, infer = module.programs["train"], module.programs["infer"]
    assert live_classes(train).bounds == Bounds(1, 6)
    rng = np.random.default_rng(classes)
    x, labels = rng.standard_normal((4, 3)), rng.integers(0, classes, 4)
    feeds = {"x": x, "labels": labels, "classes": np.int32(classes)}
    got = run(train, feeds | {"lr": np.float64(0.5)}, dtype=np.float64)

    w, b = (infer.leaves[f"fc.{name}.head"].data.astype(np.float64) for name in ("w", "b"))
    linear = torch.nn.Linear(3, classes, dtype=torch.float64)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(w[:classes]))
        linear.bias.copy_(torch.from_numpy(b[:classes]))
    scores = linear(torch.from_numpy(x))
    loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(labels))
    loss.backward()
    np.testing.assert_allclose(got.outputs["loss"], loss.item(), rtol=1e-12)
    for name, parameter, old in (("fc.w.head", linear.weight, w), ("fc.b.head", linear.bias, b)):
        expected = old.copy()
        expected[:classes] -= 0.5 * parameter.grad.numpy()
        np.testing.assert_allclose(got.updates[name], expected, rtol=1e-12, atol=1e-14)
        np.testing.assert_array_equal(got.updates[name][classes:], old[classes:])

    outputs = run(infer, {"x": x, "classes": np.int32(classes)}, dtype=np.float64).outputs
    np.testing.assert_allclose(outputs["p"][:, :classes], torch.softmax(scores, 1).detach().numpy(), rtol=1e-12)
    np.testing.assert_array_equal(outputs["p"][:, classes:], 0)
    assert (outputs["scores"].argmax(axis=1) < classes).all()
