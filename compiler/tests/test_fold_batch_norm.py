"""fold_batch_norm: dead where nothing is trained, live where something is, per channel where no layer stands before."""

import numpy as np
import pytest

from edgec.compiler.passbase import Options
from edgec.compiler.passes.fold_batch_norm import fold_batch_norm
from edgec.compiler.train import Train
from edgec.graph.ir import Module, Role
from edgec.graph.parse import parse_module
from edgec.tools.testing.pass_check import check_pass, check_same_meaning
from edgec.tools.testing.programs import initialise

STATISTICS = """
  param %beta: f32[2] = [0.5, -0.5]
  param %mean: f32[2] = [1.0, 2.0]
  param %var: f32[2] = [0.25, 4.0]
"""
CONV = """
graph infer {{
  input %x: f32[1,1,2,2]
  param %w: f32[2,1,1,1] = [1.0, 3.0]{trained}
  param %gamma: f32[2] = [2.0, 4.0]{trained}
  param %beta: f32[2] = [0.5, -0.5]{trained}
  param %mean: f32[2] = [1.0, 2.0]
  param %var: f32[2] = [0.25, 4.0]
{body}
  output "y" = %y
}}
"""
NORM = """
  %c: f32[1,2,2,2] = conv2d(%x, %w)
  %y: f32[1,2,2,2] = batch_norm(%c, %gamma, %beta, %mean, %var) {epsilon=0.0}
"""


def test_frozen_norms_fold_into_constants() -> None:
    """scale = (4, 2); shift = beta - mean * scale = (-3.5, -4.5)."""
    check_pass(
        fold_batch_norm,
        CONV.format(trained="", body=NORM),
        CONV.format(
            trained="",
            body="""
              constant %w.scaled: f32[2,1,1,1] = [4.0, 6.0]
              constant %shift: f32[2,1,1] = [-3.5, -4.5]
              %c: f32[1,2,2,2] = conv2d(%x, %w.scaled)
              %y: f32[1,2,2,2] = add(%c, %shift)
            """,
        ),
    )


def test_trained_norms_fold_live_and_the_mean_costs_no_subtraction() -> None:
    check_pass(
        fold_batch_norm,
        CONV.format(trained=" trainable", body=NORM),
        CONV.format(
            trained=" trainable",
            body="""
              constant %deviation: f32[2] = [2.0, 0.5]
              constant %negated: f32[2] = [-1.0, -2.0]
              %scale: f32[2] = mul(%gamma, %deviation)
              %scale4: f32[2,1,1,1] = reshape(%scale) {shape=(2,1,1,1)}
              %scaled: f32[2,1,1,1] = mul(%w, %scale4)
              %c: f32[1,2,2,2] = conv2d(%x, %scaled)
              %offset: f32[2] = mul(%negated, %scale)
              %shift: f32[2] = add(%offset, %beta)
              %shift3: f32[2,1,1] = reshape(%shift) {shape=(2,1,1)}
              %y: f32[1,2,2,2] = add(%c, %shift3)
            """,
        ),
    )


def test_only_what_depends_on_a_trained_parameter_stays_live() -> None:
    """With beta alone trained, weight and scale are constants, and one addition is left."""
    frozen = CONV.format(trained="", body=NORM).replace("[0.5, -0.5]", "[0.5, -0.5] trainable")
    after = """
      constant %w.scaled: f32[2,1,1,1] = [4.0, 6.0]
      constant %offset: f32[2] = [-4.0, -4.0]
      %c: f32[1,2,2,2] = conv2d(%x, %w.scaled)
      %shift: f32[2] = add(%offset, %beta)
      %shift3: f32[2,1,1] = reshape(%shift) {shape=(2,1,1)}
      %y: f32[1,2,2,2] = add(%c, %shift3)
    """
    check_pass(
        fold_batch_norm,
        frozen,
        CONV.format(trained="", body=after).replace("[0.5, -0.5]", "[0.5, -0.5] trainable"),
    )


def count(module: Module, op: str) -> int:
    return sum(node.op.name == op for node in module.programs["infer"].nodes)


def folded(text: str) -> Module:
    """The module after the pass; outputs are checked to be the same, also with other weights and batch sizes of one."""
    module = initialise(parse_module(text))
    original = module.clone()
    assert fold_batch_norm(module, Options())
    assert count(module, "batch_norm") == 0
    check_same_meaning(original, module)
    return module


@pytest.mark.parametrize("trained", ["", " trainable"])
@pytest.mark.parametrize("bias", ["%b3, %c", "%c, %b3"])
def test_a_bias_between_goes_into_the_shift(trained: str, bias: str) -> None:
    body = f"""
      param %b: f32[2]{trained}
      %b3: f32[2,1,1] = reshape(%b) {{shape=(2,1,1)}}
      %c: f32[1,2,2,2] = conv2d(%x, %w)
      %a: f32[1,2,2,2] = add({bias})
      %y: f32[1,2,2,2] = batch_norm(%a, %gamma, %beta, %mean, %var)
    """
    module = folded(CONV.format(trained=trained, body=body))
    wide = [n for n in module.programs["infer"].nodes if n.output.type.shape == (1, 2, 2, 2)]
    assert [node.op.name for node in wide] == ["conv2d", "add"]


@pytest.mark.parametrize(
    "body",
    [
        "%a: f32[1,2,2,2] = conv2d(%x, %w)\n%r: f32[1,2,2,2] = relu(%a)",
        '%r: f32[1,2,2,2] = conv2d(%x, %w)\noutput "conv" = %r',
        '%r: f32[1,2,2,2] = conv2d(%x, %w)\n%other: f32[1,2,2,2] = exp(%r)\noutput "other" = %other',
        "%e: f32[2,1,1,1] = exp(%w)\n%r: f32[1,2,2,2] = conv2d(%x, %e)",
    ],
    ids=["activation before", "conv is an output", "conv has another reader", "computed weight"],
)
@pytest.mark.parametrize("trained", ["", " trainable"])
def test_other_norms_are_a_scale_and_a_shift_per_channel(body: str, trained: str) -> None:
    module = folded(
        CONV.format(trained=trained, body=body + "\n%y: f32[1,2,2,2] = batch_norm(%r, %gamma, %beta, %mean, %var)")
    )
    last = module.programs["infer"].nodes[-1]
    assert last.op.name == "add" and last.inputs[0].producer.op.name == "mul"


def test_an_activation_of_a_batch_of_one_is_not_taken_for_a_bias() -> None:
    body = """
      %c: f32[1,2,2,2] = conv2d(%x, %w)
      %gate: f32[1,2,1,1] = reduce_max(%c) {axes=(2,3), keepdims=true}
      %d: f32[1,2,2,2] = conv2d(%x, %w)
      %a: f32[1,2,2,2] = add(%d, %gate)
      %y: f32[1,2,2,2] = batch_norm(%a, %gamma, %beta, %mean, %var)
    """
    module = folded(CONV.format(trained="", body=body))
    assert count(module, "mul") == 1


@pytest.mark.parametrize("flag", ["", " {transpose_b=true}"])
def test_norms_after_dense_layers_fold_too(flag: str) -> None:
    shape = "2,3" if flag else "3,2"
    module = folded(f"""
    graph infer {{
      input %x: f32[4,3]
      param %w: f32[{shape}] trainable
      param %gamma: f32[2] trainable
      {STATISTICS}
      %m: f32[4,2] = matmul(%x, %w){flag}
      %y: f32[4,2] = batch_norm(%m, %gamma, %beta, %mean, %var)
      output "y" = %y
    }}
    """)
    wide = [n for n in module.programs["infer"].nodes if n.output.type.shape == (4, 2)]
    assert [node.op.name for node in wide] == ["matmul", "add"]


def test_chains_of_norms_and_tied_weights() -> None:
    body = """
      %a: f32[1,2,2,2] = conv2d(%x, %w)
      %b: f32[1,2,2,2] = batch_norm(%a, %gamma, %beta, %mean, %var)
      %c: f32[1,2,2,2] = batch_norm(%b, %gamma, %beta, %mean, %var)
      %d: f32[1,2,2,2] = conv2d(%x, %w)
      %e: f32[1,2,2,2] = batch_norm(%d, %gamma, %beta, %mean, %var)
      %y: f32[1,2,2,2] = add(%c, %e)
    """
    for trained in ("", " trainable"):
        folded(CONV.format(trained=trained, body=body))


def test_epsilon_is_added_in_double_precision() -> None:
    module = folded(CONV.format(trained=" trainable", body=NORM.replace("epsilon=0.0", "epsilon=1e-05")))
    constants = {leaf.name: leaf.data for leaf in module.programs["infer"].by_role(Role.CONSTANT)}
    expected = (1 / np.sqrt(np.array([0.25, 4.0]) + 1e-5)).astype(np.float32)
    np.testing.assert_array_equal(constants["var.inverse_deviation"], expected)


def test_a_computed_variance_is_inverted_at_run_time() -> None:
    body = NORM.replace("%var)", "%v)").replace("  %y", "  %v: f32[2] = exp(%var)\n  %y").replace("0.0", "0.125")
    module = folded(CONV.format(trained="", body=body))
    assert count(module, "sqrt") == 1


def test_norms_wait_where_training_takes_the_statistics_of_the_batch() -> None:
    module = parse_module(CONV.format(trained="", body=NORM))
    assert not fold_batch_norm(module, Options(train=Train(batch_norm="train")))
