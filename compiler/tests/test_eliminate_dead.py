"""eliminate_dead: what no result needs goes; inputs, and what updates need, stay."""

from edgec.compiler.passes.eliminate_dead import eliminate_dead
from edgec.tools.testing.pass_check import check_pass


def test_dead_nodes_and_leaves_go_in_every_program() -> None:
    check_pass(
        eliminate_dead,
        """
        graph infer {
          input %x: f32[2]
          input %unread: f32[2]
          param %w: f32[2]
          param %dead: f32[2]
          constant %c: f32[] = [1.0]
          %a: f32[2] = mul(%x, %dead)
          %b: f32[2] = add(%a, %c)
          %y: f32[2] = mul(%x, %w)
          output "y" = %y
        }
        graph train {
          input %x: f32[2]
          param %w: f32[2] trainable
          state %s: f32[2] = [0.0, 0.0]
          state %t: f32[2] = [0.0, 0.0]
          scalar %lr: f32[]
          %new: f32[2] = add(%w, %x)
          %unused: f32[2] = add(%new, %t)
          update %w = %new
          update %s = %x
        }
        """,
        """
        graph infer {
          input %x: f32[2]
          input %unread: f32[2]
          param %w: f32[2]
          %y: f32[2] = mul(%x, %w)
          output "y" = %y
        }
        graph train {
          input %x: f32[2]
          param %w: f32[2] trainable
          state %s: f32[2] = [0.0, 0.0]
          %new: f32[2] = add(%w, %x)
          update %w = %new
          update %s = %x
        }
        """,
    )


def test_a_live_program_is_left_alone() -> None:
    text = """
        graph infer {
          input %x: f32[2]
          %y: f32[2] = relu(%x)
          output "y" = %y
        }
        """
    check_pass(eliminate_dead, text, text)
