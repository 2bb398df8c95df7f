"""Pass `fuse_epilogue`: programs before, groups after."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgec.backends.base import Backend, CanFuse, Group
from edgec.compiler.passes.fuse_epilogue import fuse_epilogue
from edgec.compiler.schedule import Schedule
from edgec.tools.testing.fused import fused_by, group_texts
from edgec.tools.testing.reference_backend import ReferenceBackend


def fused(text: str, backend: Backend | None = None) -> Schedule:
    return fused_by((fuse_epilogue,), text, backend)


CASES: dict[str, tuple[str, list[str]]] = {
    "a chain joins its anchor": (
        """graph infer {
          input %x: f32[1,4,5,5]
          param %w: f32[4,4,1,1]
          %c: f32[1,4,5,5] = conv2d(%x, %w)
          %r: f32[1,4,5,5] = relu(%c)
          %y: f32[1,4,5,5] = hard_swish(%r)
          output "y" = %y
        }""",
        ["conv2d+relu+hard_swish -> y"],
    ),
    "a bias, through a view of the parameter": (
        """graph infer {
          input %x: f32[1,4,5,5]
          param %w: f32[4,4,1,1]
          param %b: f32[4]
          %c: f32[1,4,5,5] = conv2d(%x, %w)
          %v: f32[4,1,1] = reshape(%b) {shape=(4,1,1)}
          %y: f32[1,4,5,5] = add(%c, %v)
          output "y" = %y
        }""",
        ["reshape -> v", "conv2d+add -> y"],
    ),
    "a residual add joins the operand computed last": (
        """graph infer {
          input %x: f32[1,4,5,5]
          param %w: f32[4,4,1,1]
          %a: f32[1,4,5,5] = conv2d(%x, %w)
          %b: f32[1,4,5,5] = conv2d(%a, %w)
          %y: f32[1,4,5,5] = add(%b, %a)
          output "y" = %y
        }""",
        ["conv2d -> a", "conv2d+add -> y"],
    ),
    "what two read has its memory anyway: a gradient joins the operand that it alone reads": (
        """graph infer {
          input %x: f32[1,4,5,5]
          input %d: f32[1,4,5,5]
          param %w: f32[4,4,1,1]
          %g: f32[1,4,5,5] = conv2d(%d, %w)
          %h: f32[1,4,5,5] = hard_swish(%x)
          %r: f32[1,4,5,5] = relu(%h)
          %y: f32[1,4,5,5] = relu_grad(%g, %r)
          %z: f32[1,4,5,5] = conv2d(%r, %w)
          output "y" = %y
          output "z" = %z
        }""",
        ["hard_swish+relu -> r", "conv2d+relu_grad -> y", "conv2d -> z"],
    ),
    "two branches: one hands its result to the other": (
        """graph infer {
          input %x: f32[1,4,5,5]
          param %w: f32[4,4,1,1]
          %a: f32[1,4,5,5] = conv2d(%x, %w)
          %r: f32[1,4,5,5] = relu(%a)
          %b: f32[1,4,5,5] = conv2d(%x, %w)
          %y: f32[1,4,5,5] = add(%r, %b)
          output "y" = %y
        }""",
        ["conv2d+relu -> r", "conv2d+add -> y"],
    ),
    "two readers: the group hands out what it fuses past": (
        """graph infer {
          input %x: f32[1,4,5,5]
          param %w: f32[4,4,1,1]
          %c: f32[1,4,5,5] = conv2d(%x, %w)
          %h: f32[1,4,5,5] = hard_swish(%c)
          %z: f32[1,4,5,5] = conv2d(%h, %w)
          %y: f32[1,4,5,5] = hard_swish_grad(%z, %c)
          output "y" = %y
        }""",
        ["conv2d+hard_swish -> c,h", "conv2d+hard_swish_grad -> y"],
    ),
    "an operand computed after the anchor, from it: a cycle, not fused": (
        """graph infer {
          input %x: f32[1,4,5,5]
          param %w: f32[4,4,1,1]
          %c: f32[1,4,5,5] = conv2d(%x, %w)
          %m: f32[1,4,1,1] = reduce_mean(%c) {axes=(2,3), keepdims=true}
          %s: f32[1,4,1,1] = hard_sigmoid(%m) {alpha=0.2, beta=0.5}
          %y: f32[1,4,5,5] = mul(%c, %s)
          output "y" = %y
        }""",
        ["conv2d -> c", "reduce_mean+hard_sigmoid -> s", "mul -> y"],
    ),
    "an operand computed after the anchor, but not from it, moves before it": (
        """graph infer {
          input %x: f32[1,4,5,5]
          param %w: f32[4,4,1,1]
          %c: f32[1,4,5,5] = conv2d(%x, %w)
          %m: f32[1,4,1,1] = reduce_mean(%x) {axes=(2,3), keepdims=true}
          %y: f32[1,4,5,5] = mul(%c, %m)
          output "y" = %y
        }""",
        ["reduce_mean -> m", "conv2d+mul -> y"],
    ),
    "a result of another shape than the anchor's does not join": (
        """graph infer {
          input %x: f32[4,1]
          input %z: f32[1,4]
          param %w: f32[1,1]
          %c: f32[4,1] = matmul(%x, %w)
          %y: f32[4,4] = add(%c, %z)
          output "y" = %y
        }""",
        ["matmul -> c", "add -> y"],
    ),
    "a view takes nobody along": (
        """graph infer {
          input %x: f32[2,8]
          param %w: f32[8,8]
          %c: f32[2,8] = matmul(%x, %w)
          %v: f32[16] = reshape(%c) {shape=(16)}
          %y: f32[16] = relu(%v)
          output "y" = %y
        }""",
        ["matmul -> c", "reshape -> v", "relu -> y"],
    ),
    "elementwise nodes alone": (
        """graph infer {
          input %x: f32[2,8]
          %a: f32[2,8] = relu(%x)
          %b: f32[2,8] = exp(%a)
          %y: f32[2,8] = mul(%a, %b)
          output "y" = %y
        }""",
        ["relu+exp+mul -> y"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_groups(name: str) -> None:
    text, wanted = CASES[name]
    assert group_texts(fused(text)) == wanted


UPDATE = """graph train {{
  input %x: f32[2,4]
  param %w: f32[4,4] trainable
  scalar %lr: f32[]
  %y: f32[2,4] = matmul(%x, %w)
  %loss: f32[] = reduce_mean(%y) {{axes=(0,1), keepdims=false}}
  %dw: f32[4,4] = matmul(%x, %y) {{transpose_a=true}}
  %dx: f32[2,4] = matmul(%y, %w) {{transpose_b=true}}
  {extra}
  %w.new: f32[4,4] = sgd_update(%w, %dw, %lr)
  output "loss" = %loss
  output "dx" = %dx
  {result}
  update %w = %w.new
  loss "loss"
}}"""


def test_an_update_joins_its_gradient_behind_the_last_reader_of_the_old_weight() -> None:
    schedule = fused(UPDATE.format(extra="", result=""))
    assert group_texts(schedule) == [
        "matmul -> y",
        "reduce_mean -> loss",
        "matmul -> dx",
        "matmul+sgd_update -> w.new",
    ]


def test_an_update_stays_apart_where_another_reader_of_the_old_weight_needs_the_gradient() -> None:
    schedule = fused(UPDATE.format(extra="%s: f32[4,4] = matmul(%dw, %w)", result='output "s" = %s'))
    groups = group_texts(schedule)
    assert "matmul -> dw" in groups
    assert groups[-2:] == ["matmul -> s", "sgd_update -> w.new"]


def test_an_update_joins_an_elementwise_reader_of_the_old_weight() -> None:
    extra = """%p: f32[4,4] = mul(%dw, %w)
               %s: f32[4] = reduce_sum(%p) {axes=(0), keepdims=false}"""
    schedule = fused(UPDATE.format(extra=extra, result='output "s" = %s'))
    assert group_texts(schedule)[-2:] == ["matmul+mul+sgd_update -> p,w.new", "reduce_sum -> s"]


def test_forward_and_rest_share_no_group() -> None:
    schedule = fused(
        """graph train {
          input %x: f32[2,4]
          param %b: f32[2,4] trainable
          %y: f32[2,4] = add(%x, %b)
          %loss: f32[] = reduce_mean(%y) {axes=(0,1), keepdims=false}
          %later: f32[2,4] = relu(%y)
          output "loss" = %loss
          update %b = %later
          loss "loss"
        }"""
    )
    assert group_texts(schedule) == ["add -> y", "reduce_mean -> loss", "relu -> later"]
    assert schedule.guard == 2


class _Refusing(ReferenceBackend):
    def fusion(self) -> CanFuse:
        return lambda anchor, follower: follower.op.name != "hard_swish"


def test_the_backend_decides_what_it_can_fuse() -> None:
    text, _ = CASES["a chain joins its anchor"]
    assert group_texts(fused(text, _Refusing())) == ["conv2d+relu -> r", "hard_swish -> y"]


class _NeverInPlace(ReferenceBackend):
    """As a kernel that would read a weight it has overwritten."""

    def in_place(self, group: Group) -> list:
        return [] if len(group.nodes) > 1 else list(super().in_place(group))


@pytest.mark.parametrize(
    ("backend", "wanted"), [(ReferenceBackend, "matmul+sgd_update -> w.new"), (_NeverInPlace, "sgd_update -> w.new")]
)
def test_an_update_joins_only_a_kernel_that_can_write_in_place(backend: Callable[[], Backend], wanted: str) -> None:
    assert wanted in group_texts(fused(UPDATE.format(extra="", result=""), backend()))


def test_a_group_never_needs_more_pointers_than_a_kernel_has() -> None:
    lines = [f"input %x{i}: f32[4]" for i in range(40)]
    sums = [f"%s{i}: f32[4] = add(%{'x0' if i == 1 else f's{i - 1}'}, %x{i})" for i in range(1, 40)]
    schedule = fused("graph infer {\n" + "\n".join(lines + sums) + '\noutput "y" = %s39\n}')
    assert max(len(g.inputs) + len(g.outputs) for g in schedule.groups) <= 18
    assert len(schedule.groups) == 3
