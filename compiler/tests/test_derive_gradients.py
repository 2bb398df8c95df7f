"""derive_gradients: the backward nodes, sums over readers, no work for what is frozen, and refusals that list all."""

import pytest

from edgec.compiler.passbase import Options
from edgec.compiler.passes.derive_gradients import derive_gradients
from edgec.graph.errors import UserError
from edgec.graph.ops import Exp, Relu
from edgec.graph.parse import parse_module
from edgec.tools.testing.pass_check import check_becomes, check_pass

FORWARD = """
  input %x: f32[2,3]
  input %targets: f32[2,4]
  param %v: f32[3,3]{first}
  param %w: f32[3,4] trainable
  {constants}
  %h: f32[2,3] = matmul(%x, %v)
  %r: f32[2,3] = relu(%h)
  %s: f32[2,3] = add(%r, %h)
  %logits: f32[2,4] = matmul(%s, %w)
  %losses: f32[2], %slopes: f32[2,4] = softmax_cross_entropy(%logits, %targets)
  %loss: f32[] = reduce_sum(%losses) {{axes=(0)}}
  {backward}
  output "loss" = %loss
  {outputs}
  loss "loss"
"""


def train(first: str = "", constants: str = "", backward: str = "", outputs: str = "") -> str:
    body = FORWARD.format(first=first, constants=constants, backward=backward, outputs=outputs)
    return f"graph train {{{body}}}"


def test_contributions_of_several_readers_are_summed() -> None:
    """%h is read by the relu and by the add around it: its gradient is the sum of both."""
    check_becomes(
        derive_gradients,
        train(first=" trainable"),
        train(
            first=" trainable",
            constants="constant %one: f32[] = [1.0]",
            backward="""
              %d.one: f32[1] = reshape(%one) {shape=(1)}
              %d.losses: f32[2] = broadcast_to(%d.one) {shape=(2)}
              %column: f32[2,1] = reshape(%d.losses) {shape=(2,1)}
              %d.logits: f32[2,4] = mul(%slopes, %column)
              %d.s: f32[2,3] = matmul(%d.logits, %w) {transpose_b=true}
              %d.w: f32[3,4] = matmul(%s, %d.logits) {transpose_a=true}
              %through: f32[2,3] = relu_grad(%d.s, %r)
              %d.h: f32[2,3] = add(%d.s, %through)
              %d.v: f32[3,3] = matmul(%x, %d.h) {transpose_a=true}
            """,
            outputs='output "v/gradient" = %d.v\n output "w/gradient" = %d.w',
        ),
        Options(),
    )


def test_nothing_is_computed_for_what_is_frozen() -> None:
    check_becomes(
        derive_gradients,
        train(),
        train(
            constants="constant %one: f32[] = [1.0]",
            backward="""
              %d.one: f32[1] = reshape(%one) {shape=(1)}
              %d.losses: f32[2] = broadcast_to(%d.one) {shape=(2)}
              %column: f32[2,1] = reshape(%d.losses) {shape=(2,1)}
              %d.logits: f32[2,4] = mul(%slopes, %column)
              %d.w: f32[3,4] = matmul(%s, %d.logits) {transpose_a=true}
            """,
            outputs='output "w/gradient" = %d.w',
        ),
        Options(),
    )


def test_gradients_are_called_after_their_values() -> None:
    module = parse_module(train(first=" trainable"))
    derive_gradients(module, Options())
    names = {value.name for value in module.programs["train"].values()}
    assert {"logits.gradient", "s.gradient", "h.gradient", "w.gradient", "v.gradient"} <= names


def test_without_a_train_program_nothing_happens() -> None:
    text = 'graph infer {\n input %x: f32[2]\n %y: f32[2] = relu(%x)\n output "y" = %y\n}'
    check_pass(derive_gradients, text, text)


def test_an_operator_without_gradient_ends_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """%h goes on through the add; that it also decides the relu is constant around almost every point."""
    monkeypatch.setattr(Relu, "no_gradient", "it is a step")
    module = parse_module(train(first=" trainable"))
    derive_gradients(module, Options())
    graph = module.programs["train"]
    assert set(graph.outputs) == {"loss", "v/gradient", "w/gradient"}
    assert "relu_grad" not in [node.op.name for node in graph.nodes]


def test_where_no_gradient_passes_all_operators_in_the_way_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only those between a trained parameter and the loss: the exp over a frozen one is none of them."""
    monkeypatch.setattr(Relu, "no_gradient", "it is a step")
    monkeypatch.setattr(Exp, "no_gradient", "it grows")
    text = train(first=" trainable").replace("%w: f32[3,4] trainable", "%w: f32[3,4]")
    text = text.replace("= relu(%h)", '= relu(%h) @"Relu_3"').replace(
        "%s: f32[2,3] = add(%r, %h)",
        """
      %early: f32[2,3] = exp(%x)
      %late: f32[2,3] = exp(%h) @"Exp_7"
      %both: f32[2,3] = add(%early, %late)
      %s: f32[2,3] = add(%r, %both)""",
    )
    with pytest.raises(UserError) as caught:
        derive_gradients(parse_module(text), Options())
    error = caught.value
    assert error.code == "E0301" and ": 2 operators" in error.message
    assert "`Relu_3` (relu): it is a step" in error.message and "`Exp_7` (exp): it grows" in error.message


def test_a_loss_that_depends_on_nothing_trained_is_refused() -> None:
    with pytest.raises(UserError, match="does not depend") as caught:
        derive_gradients(parse_module(train().replace(" trainable", "")), Options())
    assert caught.value.code == "E0303"


def test_a_trained_parameter_that_the_loss_does_not_reach_has_no_gradient() -> None:
    text = train().replace("param %v", "param %aside: f32[2] trainable\n param %v")
    module = parse_module(text)
    derive_gradients(module, Options())
    assert set(module.programs["train"].outputs) == {"loss", "w/gradient"}


@pytest.mark.parametrize("transposed", [False, True])
def test_the_gradient_of_a_matrix_is_one_product_over_the_whole_batch(transposed: bool) -> None:
    kind, extents = ("{transpose_b=true}", "4,3") if transposed else ("", "3,4")
    module = parse_module(f"""graph train {{
      input %x: f32[2,5,3]
      param %w: f32[{extents}] trainable
      %y: f32[2,5,4] = matmul(%x, %w) {kind}
      %loss: f32[] = reduce_sum(%y) {{axes=(0,1,2)}}
      output "loss" = %loss
      loss "loss"
    }}""")
    derive_gradients(module, Options())
    gradient = module.programs["train"].nodes[-1]
    assert gradient.op.name == "matmul" and gradient.output.type.shape == tuple(map(int, extents.split(",")))
    assert all(value.type.rank == 2 for value in gradient.inputs)
