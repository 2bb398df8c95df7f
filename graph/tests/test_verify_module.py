"""The verifier on modules: every program, and what programs share."""

from __future__ import annotations

import pytest

from edgec.graph.ir import Graph, Module, Role
from edgec.graph.ops import ReluGrad, Reshape
from edgec.graph.parse import parse_module
from edgec.graph.types import DType, tensor
from edgec.graph.verify import Phase, VerifyError, verify_module

TEXT = """\
graph infer {
  input %x: f32[2,3]
  param %w: f32[3]
  %a: f32[2,3] = add(%x, %w)
  output "a" = %a
}
graph train {
  input %x: f32[2,3]
  param %w: f32[3] trainable
  scalar %lr: f32[]
  %w.new: f32[3] = mul(%w, %lr)
  update %w = %w.new
}
"""


def module() -> Module:
    return parse_module(TEXT)


def test_a_sound_module_passes():
    verify_module(module())


def test_programs_stand_under_their_names():
    broken = module()
    broken.programs["eval"] = broken.programs.pop("infer")
    with pytest.raises(VerifyError, match="program `infer` stands in the module as `eval`"):
        verify_module(broken)


def test_every_program_of_a_module_is_verified_for_the_phase():
    broken = module()
    x = broken.programs["train"].leaves["x"]
    broken.programs["train"].emit(ReluGrad(), x, x)
    with pytest.raises(VerifyError, match="program `train` is broken: `relu_grad` may not occur"):
        verify_module(broken, Phase.IMPORTED)


def test_programs_agree_on_shared_leaves():
    broken = module()
    reshaped = Graph("infer")
    leaf = reshaped.add_leaf(Role.PARAM, "w", tensor(DType.F32, 1, 3))
    reshaped.outputs["y"] = reshaped.emit1(Reshape((3,)), leaf)
    broken.programs["infer"] = reshaped
    with pytest.raises(VerifyError, match="programs `infer` and `train` disagree") as caught:
        verify_module(broken)
    assert "param %w: f32[1,3]\n" in str(caught.value) and "param %w: f32[3] trainable" in str(caught.value)
