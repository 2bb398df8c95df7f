"""Pass `share_constants`: names and data of constants agree over programs."""

from __future__ import annotations

from edgec.compiler.passbase import Options
from edgec.compiler.passes.share_constants import share_constants
from edgec.graph.ir import Module, Role
from edgec.graph.parse import parse_module
from edgec.graph.verify import verify_module

BEFORE = """
graph infer {
  input %x: f32[2]
  constant %c: f32[2] = [1.0, 2.0]
  constant %d: f32[2] = [3.0, 4.0]
  constant %same: f32[2] = [1.0, 2.0]
  %a: f32[2] = add(%x, %c)
  %b: f32[2] = add(%a, %d)
  %e: f32[2] = add(%b, %same)
  output "y" = %e
}
graph eval {
  input %x: f32[2]
  constant %c: f32[2] = [3.0, 4.0]
  constant %d: f32[2] = [1.0, 2.0]
  constant %same: f32[2] = [9.0, 9.0]
  %a: f32[2] = add(%x, %c)
  %b: f32[2] = add(%a, %d)
  %e: f32[2] = add(%b, %same)
  output "y" = %e
}
"""


def constants(module: Module, program: str) -> dict[str, list[float]]:
    return {leaf.name: leaf.data.tolist() for leaf in module.programs[program].by_role(Role.CONSTANT)}


def test_names_follow_the_data() -> None:
    module = parse_module(BEFORE)
    assert share_constants(module, Options())
    verify_module(module)
    assert constants(module, "infer") == {"c": [1.0, 2.0], "d": [3.0, 4.0]}
    assert constants(module, "eval") == {"c": [1.0, 2.0], "d": [3.0, 4.0], "same": [9.0, 9.0]}
    names = [node.inputs[1].name for node in module.programs["eval"].nodes]
    assert names == ["d", "c", "same"]
    assert not share_constants(module, Options())


def test_a_constant_does_not_take_the_name_of_another_programs_value() -> None:
    module = parse_module(
        """
        graph infer {
          input %x: f32[2]
          constant %p: f32[2] = [1.0, 2.0]
          %y: f32[2] = add(%x, %p)
          output "y" = %y
        }
        graph eval {
          input %x: f32[2]
          constant %k: f32[2] = [1.0, 2.0]
          param %p: f32[2]
          %a: f32[2] = add(%x, %p)
          %y: f32[2] = add(%a, %k)
          output "y" = %y
        }
        """
    )
    share_constants(module, Options())
    verify_module(module)
    assert set(constants(module, "infer")) == set(constants(module, "eval")) == {"p.1"}
