"""Pass `fuse_tails`: programs before, groups after."""

from __future__ import annotations

import pytest

from edgec.backends.base import Backend
from edgec.compiler.passes.fuse_epilogue import fuse_epilogue
from edgec.compiler.passes.fuse_tails import fuse_tails
from edgec.compiler.schedule import Schedule
from edgec.tools.testing.fused import fused_by, group_texts
from edgec.tools.testing.reference_backend import SCALAR_TARGET, ReferenceBackend


def fused(text: str, backend: Backend | None = None, again: tuple[str, ...] = ()) -> Schedule:
    return fused_by((fuse_epilogue, fuse_tails), text, backend, again)


NET = """graph train {{
  input %x: f32[2,4,5,5]
  input %weights: f32[2,1,1,1]
  param %w: f32[4,4,1,1] trainable
  scalar %lr: f32[]
  {nodes}
}}"""
MOMENTS = "%mean: f32[4], %variance: f32[4] = moments({}) {{axes=(0,2,3)}}"

CASES: dict[str, tuple[str, list[str]]] = {
    "moments of what a convolution and its epilogue store": (
        f"""%c: f32[2,4,5,5] = conv2d(%x, %w)
        %r: f32[2,4,5,5] = relu(%c)
        {MOMENTS.format("%r")}
        output "r" = %r
        output "mean" = %mean""",
        ["conv2d+relu+moments -> r,mean,variance"],
    ),
    "what the tail also needs moves before the group": (
        f"""%c: f32[2,4,5,5] = conv2d(%x, %w)
        %shares: f32[2,1,1,1] = relu(%weights)
        {MOMENTS.format("%c, %shares")}
        output "c" = %c
        output "variance" = %variance""",
        ["relu -> shares", "conv2d+moments -> c,mean,variance"],
    ),
    "what the tail needs waits for the group": (
        f"""%c: f32[2,4,5,5] = conv2d(%x, %w)
        %shares: f32[2,1,1,1] = reduce_mean(%c) {{axes=(1,2,3), keepdims=true}}
        {MOMENTS.format("%c, %shares")}
        output "c" = %c
        output "variance" = %variance""",
        ["conv2d -> c", "reduce_mean -> shares", "moments -> mean,variance"],
    ),
    "what nobody else reads is not stored": (
        f"""%c: f32[2,4,5,5] = conv2d(%x, %w)
        {MOMENTS.format("%c")}
        output "mean" = %mean""",
        ["conv2d -> c", "moments -> mean,variance"],
    ),
    "a group has one tail": (
        f"""%c: f32[2,4,5,5] = conv2d(%x, %w)
        {MOMENTS.format("%c")}
        %m: f32[4], %v: f32[4] = moments(%c, %weights) {{axes=(0,2,3)}}
        output "c" = %c
        output "mean" = %mean
        output "m" = %m""",
        ["conv2d+moments -> c,mean,variance", "moments -> m,v"],
    ),
    "elementwise nodes alone have no tail": (
        f"""%r: f32[2,4,5,5] = relu(%x)
        {MOMENTS.format("%r")}
        output "r" = %r
        output "mean" = %mean""",
        ["relu -> r", "moments -> mean,variance"],
    ),
    "gradients of scale and shift behind an input gradient": (
        """%dy: f32[2,4,5,5] = conv2d_input_grad(%x, %w) {input_size=(5,5)}
        %d: f32[2,4,5,5] = relu_grad(%dy, %x)
        %mean: f32[2,1,1,1] = relu(%weights)
        %dgamma: f32[4], %dbeta: f32[4] = norm_param_grad(%d, %x, %mean, %weights) {axes=(0,2,3)}
        output "d" = %d
        output "dbeta" = %dbeta""",
        ["relu -> mean", "conv2d_input_grad+relu_grad+norm_param_grad -> d,dgamma,dbeta"],
    ),
    "of another operand than the first there are no sums": (
        """%c: f32[2,4,5,5] = conv2d(%x, %w)
        %dgamma: f32[4], %dbeta: f32[4] = norm_param_grad(%x, %c, %weights, %weights) {axes=(0,2,3)}
        output "c" = %c
        output "dbeta" = %dbeta""",
        ["conv2d -> c", "norm_param_grad -> dgamma,dbeta"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_groups(name: str) -> None:
    nodes, wanted = CASES[name]
    assert group_texts(fused(NET.format(nodes=nodes))) == wanted


def test_the_backend_decides() -> None:
    nodes, _ = CASES["moments of what a convolution and its epilogue store"]
    assert group_texts(fused(NET.format(nodes=nodes), ReferenceBackend(SCALAR_TARGET))) == [
        "conv2d+relu -> r",
        "moments -> mean,variance",
    ]


def test_sums_for_the_backward_part_stay_behind_the_guard() -> None:
    nodes = f"""%c: f32[2,4,5,5] = conv2d(%x, %w)
        {MOMENTS.format("%c")}
        %loss: f32[] = reduce_mean(%c) {{axes=(0,1,2,3), keepdims=false}}
        %dw: f32[4,4,1,1] = conv2d_weight_grad(%x, %c) {{kernel_size=(1,1)}}
        %w.new: f32[4,4,1,1] = sgd_update(%w, %dw, %lr)
        output "loss" = %loss
        output "mean" = %mean
        update %w = %w.new
        loss "loss\""""
    assert "moments -> mean,variance" in group_texts(fused(NET.format(nodes=nodes)))


def test_what_is_computed_again_and_what_is_not_stay_apart() -> None:
    nodes, wanted = CASES["moments of what a convolution and its epilogue store"]
    text = NET.format(nodes=nodes)
    assert group_texts(fused(text, again=("c", "r"))) != wanted
    assert group_texts(fused(text, again=("c", "r", "mean"))) == wanted


def test_a_result_never_overwrites_what_the_tail_reads() -> None:
    nodes, _ = CASES["gradients of scale and shift behind an input gradient"]
    schedule = fused(NET.format(nodes=nodes))
    group = schedule.groups[-1]
    read = {value.name for _, value in schedule.backend.in_place(group)}
    assert group.tail is not None and read.isdisjoint({"x", "mean", "weights"})
