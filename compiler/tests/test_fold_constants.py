"""fold_constants: nodes of constants only are evaluated; parameters stay."""

from edgec.compiler.passes.fold_constants import fold_constants
from edgec.tools.testing.pass_check import check_pass


def test_constant_chains_fold_and_parameters_do_not() -> None:
    check_pass(
        fold_constants,
        """
        graph infer {
          input %x: f32[2]
          param %w: f32[2]
          constant %a: f32[2] = [1.0, 2.0]
          constant %b: f32[] = [3.0]
          %sum: f32[2] = add(%a, %b)
          %twice: f32[2] = add(%sum, %sum)
          %scaled: f32[2] = mul(%w, %b)
          %y: f32[2] = mul(%x, %twice)
          %z: f32[2] = mul(%y, %scaled)
          output "z" = %z
        }
        """,
        """
        graph infer {
          input %x: f32[2]
          param %w: f32[2]
          constant %b: f32[] = [3.0]
          constant %twice: f32[2] = [8.0, 10.0]
          %scaled: f32[2] = mul(%w, %b)
          %y: f32[2] = mul(%x, %twice)
          %z: f32[2] = mul(%y, %scaled)
          output "z" = %z
        }
        """,
    )


def test_an_output_may_fold_to_a_constant() -> None:
    check_pass(
        fold_constants,
        """
        graph infer {
          constant %a: f32[2] = [1.0, 2.0]
          %z: f32[2] = mul(%a, %a)
          output "z" = %z
          output "a" = %a
        }
        """,
        """
        graph infer {
          constant %a: f32[2] = [1.0, 2.0]
          constant %z: f32[2] = [1.0, 4.0]
          output "z" = %z
          output "a" = %a
        }
        """,
    )


def test_large_fills_stay_nodes() -> None:
    """The zeros that a gradient is added to would otherwise be carried in the artifact."""
    text = """
    graph infer {
      input %x: f32[64,64]
      constant %zero: f32[] = [0.0]
      %zeros: f32[64,64] = broadcast_to(%zero) {shape=(64,64)}
      %y: f32[128,64] = concat(%x, %zeros) {axis=0}
      output "y" = %y
    }
    """
    check_pass(fold_constants, text, text)
