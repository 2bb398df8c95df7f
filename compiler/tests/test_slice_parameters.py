"""slice_parameters: weights of which some channels are trained become two parameters, whatever reads them."""

import numpy as np
import pytest

from edgec.compiler.passbase import Options
from edgec.compiler.passes.mark_trainable import mark_trainable
from edgec.compiler.passes.slice_parameters import slice_parameters
from edgec.compiler.sparse.scheme import Scheme, WeightRule
from edgec.compiler.train import Train
from edgec.graph.errors import UserError
from edgec.graph.ir import Module
from edgec.graph.parse import parse_module
from edgec.graph.verify import verify_module
from edgec.tools.testing.pass_check import check_same_meaning
from edgec.tools.testing.programs import initialise

NET = """
graph infer {
  input %x: f32[2,4,3,3]
  param %conv.w: f32[6,4,1,1]
  param %dw.w: f32[12,1,3,3]
  param %up.w: f32[12,4,1,1]
  param %scale: f32[4,1,1]
  param %fc.w: f32[5,4]
  param %left.w: f32[3,2]
  %a: f32[2,6,3,3] = conv2d(%x, %conv.w)
  %b: f32[2,12,3,3] = conv2d(%a, %dw.w) {pads=(1,1,1,1), groups=6}
  %c: f32[2,4,3,3] = conv2d_input_grad(%b, %up.w) {input_size=(3,3)}
  %d: f32[2,4,3,3] = mul(%c, %scale)
  %e: f32[2,4] = reduce_mean(%d) {axes=(2,3)}
  %fc.t: f32[4,5] = transpose(%fc.w) {perm=(1,0)}
  %f: f32[2,5] = matmul(%e, %fc.t)
  %y: f32[3,5] = matmul(%left.w, %f)
  output "y" = %y
}
"""


def sliced(*rules: tuple[str, float], text: str = NET) -> tuple[Module, Module, bool]:
    """The module before and after, and whether the pass says that it changed something."""
    module = initialise(parse_module(text))
    scheme = Scheme("none", weights=tuple(WeightRule(*rule) for rule in rules))
    options = Options(train=Train(update=scheme))
    mark_trainable(module, options)
    before = module.clone()
    changed = slice_parameters(module, options)
    verify_module(module)
    assert not slice_parameters(module, options)
    return before, module, changed


@pytest.mark.parametrize(
    ("name", "ratio", "axis", "shape"),
    [
        ("conv.w", 0.5, 1, (6, 2, 1, 1)),
        ("conv.w", 0.1, 1, (6, 1, 1, 1)),  # at least one
        ("conv.w", 0.625, 1, (6, 3, 1, 1)),  # half up
        ("dw.w", 0.5, 0, (6, 1, 3, 3)),  # three groups of two
        ("up.w", 0.25, 0, (3, 4, 1, 1)),
        ("fc.w", 0.75, 1, (5, 3)),
        ("left.w", 0.5, 1, (3, 1)),
    ],
)
def test_the_first_channels_are_trained_and_the_rest_is_not(
    name: str, ratio: float, axis: int, shape: tuple[int, ...]
) -> None:
    before, after, changed = sliced((name, ratio))
    weight, leaves = before.programs["infer"].leaves[name], after.programs["infer"].leaves
    slice_, rest = leaves[f"{name}/slice"], leaves[f"{name}/rest"]
    assert changed and name not in leaves and slice_.type.shape == shape
    assert slice_.trainable and not rest.trainable
    np.testing.assert_array_equal(np.concatenate([slice_.data, rest.data], axis), weight.data)
    assert after.parts[name].pieces == (f"{name}/slice", f"{name}/rest") and after.parts[name].axis == axis
    check_same_meaning(before, after, rtol=0)


@pytest.mark.parametrize("rule", [("conv.w", 1.0), ("conv.w", 0.9), ("scale", 0.5)])
def test_what_is_trained_whole_stays_whole(rule: tuple[str, float]) -> None:
    """All channels, all after rounding, and what is no layer's weight."""
    before, after, changed = sliced(rule)
    assert not changed and not after.parts
    assert list(after.programs["infer"].leaves) == list(before.programs["infer"].leaves)


def test_a_ratio_of_nothing_trains_nothing() -> None:
    _, after, changed = sliced(("conv.w", 0.0), ("*", 1.0))
    leaves = after.programs["infer"].leaves
    assert not changed and not leaves["conv.w"].trainable and leaves["dw.w"].trainable


def test_all_at_once_mean_the_same() -> None:
    before, after, _ = sliced(("*.w", 0.5))
    assert len(after.parts) == 5
    check_same_meaning(before, after, rtol=0)


def test_a_weight_that_is_reshaped_by_the_model_may_not_show_its_channels() -> None:
    text = NET.replace("%fc.w: f32[5,4]", "%fc.w: f32[2,10]").replace(
        "%fc.t: f32[4,5] = transpose(%fc.w) {perm=(1,0)}", "%fc.t: f32[4,5] = reshape(%fc.w) {shape=(4,5)}"
    )
    with pytest.raises(UserError, match="the channels of `fc.w` cannot be cut") as caught:
        sliced(("fc.w", 0.5), text=text)
    assert caught.value.code == "E0302"
    kept = NET.replace("%fc.w: f32[5,4]", "%fc.w: f32[4,5]").replace(
        "%fc.t: f32[4,5] = transpose(%fc.w) {perm=(1,0)}", "%fc.t: f32[4,5] = reshape(%fc.w) {shape=(4,5)}"
    )
    assert sliced(("fc.w", 0.5), text=kept)[1].parts["fc.w"].axis == 0
