"""append_updates: one optimizer step per gradient, momentum as state, the learning rate as a scalar."""

import pytest

from edgec.compiler.passbase import Options
from edgec.compiler.passes.append_updates import append_updates
from edgec.compiler.train import Train
from edgec.graph.errors import UserError
from edgec.graph.parse import parse_module
from edgec.tools.testing.pass_check import check_becomes

BEFORE = """
graph train {
  input %x: f32[2]
  param %w: f32[2] trainable
  param %frozen: f32[2]
  %y: f32[2] = mul(%x, %w)
  %g: f32[2] = mul(%y, %frozen)
  %loss: f32[] = reduce_sum(%y) {axes=(0)}
  output "loss" = %loss
  output "w/gradient" = %g
  loss "loss"
}
"""
AFTER = """
graph train {{
  input %x: f32[2]
  param %w: f32[2] trainable
  param %frozen: f32[2]
  scalar %lr: f32[]
  {state}
  %y: f32[2] = mul(%x, %w)
  %g: f32[2] = mul(%y, %frozen)
  %loss: f32[] = reduce_sum(%y) {{axes=(0)}}
  {step}
  output "loss" = %loss
  update %w = %new
  {update}
  loss "loss"
}}
"""


def test_plain_sgd_has_no_state() -> None:
    step = "%new: f32[2] = sgd_update(%w, %g, %lr) {weight_decay=0.1}"
    options = Options(train=Train(weight_decay=0.1))
    check_becomes(append_updates, BEFORE, AFTER.format(state="", step=step, update=""), options)


def test_momentum_is_a_state_of_zeros() -> None:
    after = AFTER.format(
        state='state %"w/momentum": f32[2] = [0.0, 0.0]',
        step='%new: f32[2], %v: f32[2] = sgd_update(%w, %g, %lr, %"w/momentum") {momentum=0.9, nesterov=true}',
        update='update %"w/momentum" = %v',
    )
    check_becomes(append_updates, BEFORE, after, Options(train=Train(momentum=0.9, nesterov=True)))


def test_a_model_input_called_lr_is_refused() -> None:
    module = parse_module(BEFORE.replace("%x", "%lr"))
    with pytest.raises(UserError, match="`lr` is the name of the learning rate") as caught:
        append_updates(module, Options(train=Train()))
    assert caught.value.code == "E0302"


def test_a_computed_value_called_lr_gives_way() -> None:
    module = parse_module(BEFORE.replace("%y", "%lr"))
    append_updates(module, Options(train=Train()))
    assert module.programs["train"].leaves["lr"].role.value == "scalar"
