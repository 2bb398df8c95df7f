"""mark_trainable: which parameters each update scheme names."""

import pytest

from edgec.compiler.passbase import Options
from edgec.compiler.passes.mark_trainable import mark_trainable
from edgec.compiler.train import Train
from edgec.graph.errors import UserError
from edgec.graph.ir import Role
from edgec.graph.parse import parse_module
from edgec.graph.text import print_module
from edgec.tools.testing.pass_check import check_pass

NET = """
graph infer {
  input %x: f32[1,2,4,4]
  param %c1.w: f32[2,2,1,1]
  param %c1.b: f32[2]
  param %n1.gamma: f32[2]
  param %n1.beta: f32[2]
  param %n1.mean: f32[2]
  param %n1.var: f32[2] = [1.0, 2.0]
  param %position: f32[2,4,4]
  param %index: i64[2] = [0, 1]
  param %unread: f32[2]
  param %c2.w: f32[4,1,3,3]
  param %c2.b: f32[4]
  param %fc.w: f32[3,16]
  param %fc.b: f32[3]
  %c1: f32[1,2,4,4] = conv2d(%x, %c1.w)
  %c1.b3: f32[2,1,1] = reshape(%c1.b) {shape=(2,1,1)}
  %a1: f32[1,2,4,4] = add(%c1, %c1.b3)
  %n1: f32[1,2,4,4] = batch_norm(%a1, %n1.gamma, %n1.beta, %n1.mean, %n1.var)
  %r1: f32[1,2,4,4] = relu(%n1)
  %p1: f32[1,2,4,4] = add(%r1, %position)
  %c2: f32[1,4,2,2] = conv2d(%p1, %c2.w) {groups=2}
  %c2.b3: f32[4,1,1] = reshape(%c2.b) {shape=(4,1,1)}
  %a2: f32[1,4,2,2] = add(%c2.b3, %c2)
  %flat: f32[1,16] = reshape(%a2) {shape=(1,16)}
  %fc.t: f32[16,3] = transpose(%fc.w) {perm=(1,0)}
  %fc: f32[1,3] = matmul(%flat, %fc.t)
  %y: f32[1,3] = add(%fc, %fc.b)
  output "y" = %y
}
"""
HEAD = {"fc.w", "fc.b"}
LAYER_2 = {"c2.w", "c2.b"}
LAYER_1 = {"c1.w", "c1.b", "n1.gamma", "n1.beta"}
SCHEMES = {
    "full": HEAD | LAYER_2 | LAYER_1 | {"position"},
    "head": HEAD,
    "last:1": HEAD,
    "last:2": HEAD | LAYER_2,
    "last:3": HEAD | LAYER_2 | LAYER_1,
    "bias": HEAD | {"c1.b", "c2.b", "n1.beta"},
}


@pytest.mark.parametrize(("update", "names"), SCHEMES.items(), ids=SCHEMES)
def test_schemes(update: str, names: set[str]) -> None:
    """The text form marks them; nothing else of the program changes."""
    after = "\n".join(
        line + " trainable" if line.split(":")[0].removeprefix("  param %") in names else line
        for line in NET.splitlines()
    )
    check_pass(mark_trainable, NET, after, Options(train=Train(update=update)))


def test_without_training_nothing_is_trainable_in_any_program() -> None:
    marked = NET.replace("param %fc.w: f32[3,16]", "param %fc.w: f32[3,16] trainable")
    check_pass(mark_trainable, marked + marked.replace("infer", "other"), NET + NET.replace("infer", "other"))


def test_a_layer_that_others_read_before_its_bias_keeps_its_weight_alone() -> None:
    module = parse_module(
        NET.replace('output "y" = %y', 'output "y" = %y\n  output "fc" = %twice').replace(
            "  output", "  %twice: f32[1,3] = add(%fc, %fc)\n  output", 1
        )
    )
    mark_trainable(module, Options(train=Train(update="head")))
    assert {leaf.name for leaf in module.programs["infer"].by_role(Role.PARAM) if leaf.trainable} == {"fc.w"}


def test_more_layers_than_there_are() -> None:
    with pytest.raises(UserError, match="the model has 3 layers") as caught:
        mark_trainable(parse_module(NET), Options(train=Train(update="last:4")))
    assert caught.value.code == "E0302"


@pytest.mark.parametrize("update", ["full", "head", "bias", "last:1"])
def test_nothing_to_train(update: str) -> None:
    text = 'graph infer {\n input %x: f32[2]\n %y: f32[2] = relu(%x)\n output "y" = %y\n}'
    with pytest.raises(UserError) as caught:
        mark_trainable(parse_module(text), Options(train=Train(update=update)))
    assert caught.value.code == "E0303"


def test_marks_follow_the_infer_program_into_others() -> None:
    module = parse_module(NET + NET.replace("infer", "other"))
    assert mark_trainable(module, Options(train=Train(update="head")))
    assert print_module(module).count("trainable") == 2 * len(HEAD)
    assert not mark_trainable(module, Options(train=Train(update="head")))
