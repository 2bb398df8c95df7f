"""append_loss: `train` and `eval` from `infer`, at the train batch, on the logits."""

import pytest

from edgec.compiler.passbase import Options
from edgec.compiler.passes.append_loss import append_loss
from edgec.compiler.train import Train
from edgec.graph.errors import UserError
from edgec.graph.parse import parse_module
from edgec.tools.testing.pass_check import check_becomes, check_pass

INFER = """
graph infer {
  input %x: f32[1,2,1,3]
  param %w: f32[6,4] trainable
  %flat: f32[1,6] = reshape(%x) {shape=(1,6)}
  %logits: f32[1,4] = matmul(%flat, %w)
  %p: f32[1,4] = softmax(%logits) {axis=1}
  output "p" = %p
}
"""


def test_train_and_eval_are_made_from_infer() -> None:
    check_becomes(
        append_loss,
        INFER,
        INFER
        + """
        graph train {
          input %x: f32[8,2,1,3]
          param %w: f32[6,4] trainable
          constant %numbers: i32[8] = [0, 1, 2, 3, 4, 5, 6, 7]
          scalar %rows: i32[] within (1,8)
          input %target: i64[8] within (0,3)
          constant %classes: i64[1,4] = [0, 1, 2, 3]
          %flat: f32[8,6] = reshape(%x) {shape=(8,6)}
          %logits: f32[8,4] = matmul(%flat, %w)
          %p: f32[8,4] = softmax(%logits) {axis=1}
          %valid: bool[8] = less(%numbers, %rows)
          %mask: f32[8] = cast(%valid) {to="f32"}
          %column: f32[8,1] = reshape(%mask) {shape=(8,1)}
          %labels: i64[8,1] = reshape(%target) {shape=(8,1)}
          %hit: bool[8,4] = equal(%labels, %classes)
          %one: f32[8,4] = cast(%hit) {to="f32"}
          %targets: f32[8,4] = mul(%one, %column)
          %losses: f32[8], %slopes: f32[8,4] = softmax_cross_entropy(%logits, %targets)
          %total: f32[] = reduce_sum(%losses) {axes=(0)}
          %weight: f32[] = cast(%rows) {to="f32"}
          %loss: f32[] = div(%total, %weight)
          output "loss" = %loss
          loss "loss"
        }
        graph eval {
          input %x: f32[8,2,1,3]
          param %w: f32[6,4] trainable
          constant %numbers: i32[8] = [0, 1, 2, 3, 4, 5, 6, 7]
          scalar %rows: i32[] within (1,8)
          input %target: i64[8] within (0,3)
          constant %classes: i64[1,4] = [0, 1, 2, 3]
          %flat: f32[8,6] = reshape(%x) {shape=(8,6)}
          %logits: f32[8,4] = matmul(%flat, %w)
          %p: f32[8,4] = softmax(%logits) {axis=1}
          %valid: bool[8] = less(%numbers, %rows)
          %mask: f32[8] = cast(%valid) {to="f32"}
          %column: f32[8,1] = reshape(%mask) {shape=(8,1)}
          %labels: i64[8,1] = reshape(%target) {shape=(8,1)}
          %hit: bool[8,4] = equal(%labels, %classes)
          %one: f32[8,4] = cast(%hit) {to="f32"}
          %targets: f32[8,4] = mul(%one, %column)
          %losses: f32[8], %slopes: f32[8,4] = softmax_cross_entropy(%logits, %targets)
          %total: f32[] = reduce_sum(%losses) {axes=(0)}
          %weight: f32[] = cast(%rows) {to="f32"}
          %loss: f32[] = div(%total, %weight)
          output "p" = %p
          output "loss" = %loss
          loss "loss"
        }
        """,
        Options(train=Train(batch=8, labels="target")),
    )


def test_without_training_nothing_happens() -> None:
    check_pass(append_loss, INFER, INFER)


def logits_name(tail: str, output: str) -> str:
    """What the loss reads when the model ends in `tail`."""
    text = f"""
    graph infer {{
      input %x: f32[1,4]
      param %w: f32[4,4] trainable
      %h: f32[1,4] = matmul(%x, %w)
      {tail}
      output "y" = %{output}
    }}
    """
    module = parse_module(text)
    append_loss(module, Options(train=Train()))
    (node,) = [node for node in module.programs["train"].nodes if node.op.name == "softmax_cross_entropy"]
    value = node.inputs[0]
    while value.producer.op.name == "reshape":
        value = value.producer.inputs[0]
    assert value.type.shape[0] == 1
    return value.name


@pytest.mark.parametrize(
    ("tail", "output", "logits"),
    [
        ("", "h", "h"),
        ("%s: f32[1,4] = softmax(%h) {axis=1}", "s", "h"),
        ("%a: f32[1,4,1,1] = reshape(%h) {shape=(1,4,1,1)}", "a", "h"),
        (
            "%a: f32[1,4,1,1] = reshape(%h) {shape=(1,4,1,1)}\n%s: f32[1,4,1,1] = softmax(%a) {axis=1}\n"
            "%b: f32[1,4] = reshape(%s) {shape=(1,4)}",
            "b",
            "h",
        ),
        ("%s: f32[1,4] = softmax(%h) {axis=0}", "s", "s"),
        (
            "%a: f32[1,2,2] = reshape(%h) {shape=(1,2,2)}\n%s: f32[1,2,2] = softmax(%a) {axis=2}\n"
            "%b: f32[1,4] = reshape(%s) {shape=(1,4)}",
            "b",
            "s",
        ),
    ],
    ids=["plain", "softmax", "trailing ones", "softmax before reshape", "softmax over images", "softmax over parts"],
)
def test_a_final_softmax_over_the_classes_is_left_out(tail: str, output: str, logits: str) -> None:
    assert logits_name(tail, output) == logits


def test_computed_values_give_way_to_the_names_of_training() -> None:
    text = INFER.replace("%flat", "%labels").replace("%logits", "%loss")
    module = parse_module(text)
    append_loss(module, Options(train=Train()))
    assert "labels" in module.programs["train"].leaves


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('output "p"', 'output "loss"', "output called `loss`"),
        ("%x", "%labels", "`labels` is the name of the label input"),
        ("%w", "%loss", "`loss` is the name of the training loss"),
        ('output "p" = %p', '%s: f32[2,2] = reshape(%p) {shape=(2,2)}\n output "p" = %s', "one score"),
        ('output "p" = %p', '%s: f32[4] = reshape(%p) {shape=(4)}\n output "p" = %s', "one score"),
    ],
)
def test_models_that_do_not_fit_are_refused(old: str, new: str, message: str) -> None:
    module = parse_module(INFER.replace(old, new))
    with pytest.raises(UserError, match=message) as caught:
        append_loss(module, Options(train=Train()))
    assert caught.value.code == "E0302"
