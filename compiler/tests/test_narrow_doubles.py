"""narrow_doubles: doubles become singles, unless the program is fed them."""

from edgec.compiler.passes.narrow_doubles import narrow_doubles
from edgec.tools.testing.pass_check import check_pass


def test_doubles_on_the_way_become_singles() -> None:
    check_pass(
        narrow_doubles,
        """
        graph infer {
          input %x: f32[3]
          input %n: i64[3]
          param %w: f64[3]
          constant %c: f64[] = [0.5]
          %wide: f64[3] = cast(%x) {to="f64"}
          %count: f64[3] = cast(%n) {to="f64"}
          %scaled: f64[3] = mul(%wide, %w)
          %sum: f64[3] = add(%scaled, %count)
          %half: f64[3] = mul(%sum, %c)
          %y: f32[3] = cast(%half) {to="f32"}
          %z: f32[3] = relu(%y)
          output "z" = %z
        }
        """,
        """
        graph infer {
          input %x: f32[3]
          input %n: i64[3]
          param %w: f32[3]
          constant %c: f32[] = [0.5]
          %wide: f32[3] = cast(%x) {to="f32"}
          %count: f32[3] = cast(%n) {to="f32"}
          %scaled: f32[3] = mul(%wide, %w)
          %sum: f32[3] = add(%scaled, %count)
          %half: f32[3] = mul(%sum, %c)
          %y: f32[3] = cast(%half) {to="f32"}
          %z: f32[3] = relu(%y)
          output "z" = %z
        }
        """,
    )


def test_an_output_becomes_single_and_what_is_fed_in_stays() -> None:
    check_pass(
        narrow_doubles,
        """
        graph infer {
          input %x: f32[3]
          %y: f64[3] = cast(%x) {to="f64"}
          output "y" = %y
        }
        """,
        """
        graph infer {
          input %x: f32[3]
          %y: f32[3] = cast(%x) {to="f32"}
          output "y" = %y
        }
        """,
    )
    fed = """
        graph infer {
          input %x: f64[3]
          %y: f32[3] = cast(%x) {to="f32"}
          output "y" = %y
        }
        """
    check_pass(narrow_doubles, fed, fed)
