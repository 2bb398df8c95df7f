"""Pass `plan_memory`: a golden plan, and properties of the offset assignment."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.compiler.compile import lower_module
from edgec.compiler.memory.lifetimes import Lifetime, aligned
from edgec.compiler.memory.plan import Request, assign_offsets, make_plan
from edgec.compiler.passbase import Options
from edgec.compiler.report import memory_rows
from edgec.graph.ir import Module
from edgec.graph.parse import parse_graph
from edgec.tools.testing.programs import initialise
from edgec.tools.testing.reference_backend import SCALAR_TARGET, ReferenceBackend

GOLDEN = """graph train {
  input %x: f32[4,8]
  param %w: f32[8,16] trainable
  scalar %lr: f32[]
  %h: f32[4,16] = matmul(%x, %w)
  %r: f32[4,16] = relu(%h)
  %loss: f32[] = reduce_mean(%r) {axes=(0,1), keepdims=false}
  %dr: f32[4,16] = relu_grad(%h, %r)
  %dw: f32[8,16] = matmul(%x, %dr) {transpose_a=true}
  %w.new: f32[8,16] = sgd_update(%w, %dw, %lr)
  output "loss" = %loss
  update %w = %w.new
  loss "loss"
}"""


def test_golden_plan() -> None:
    module = initialise(Module({"train": parse_graph(GOLDEN)}))
    (schedules,) = lower_module(module, [ReferenceBackend(SCALAR_TARGET)], Options()).schedules
    schedule = schedules.programs["train"]
    assert [[node.op.name for node in group.nodes] for group in schedule.groups] == [
        ["matmul", "relu"],
        ["reduce_mean"],
        ["relu_grad"],
        ["matmul", "sgd_update"],
    ]
    rows = [tuple(row.values()) for row in memory_rows(schedule)]
    # name, role, bytes, offset, first, last, what it is kept for.
    # `dr` overwrites `h`, which it reads last; `w.new` lies in `w`.
    assert rows == [
        ("r", "saved activation", 256, 0, 0, 2, "relu_grad"),
        ("workspace 0.0", "workspace", 256, 256, 0, 0, ""),
        ("h", "saved activation", 256, 512, 0, 3, "relu_grad"),
        ("x", "input", 128, 768, 0, 3, "matmul"),
        ("lr", "scalar", 4, 896, 0, 3, ""),
        ("loss", "output", 4, 960, 1, 3, ""),
        ("workspace 3.0", "workspace", 512, 0, 3, 3, ""),
    ]
    assert schedule.plan.arena_bytes == schedule.plan.live_peak == 1024


def test_memory_is_handed_on_later_where_groups_run_side_by_side() -> None:
    """Of a chain of large values, every third may lie where the first did; with two steps ahead, every fifth."""
    values = "".join(f"%v{i}: f32[64] = softmax(%{'x' if i == 0 else f'v{i - 1}'}) {{axis=0}}\n" for i in range(9))
    graph = parse_graph(f'graph infer {{\ninput %x: f32[64]\n{values}output "y" = %v8\n}}')
    (schedules,) = lower_module(Module({"infer": graph}), [ReferenceBackend(SCALAR_TARGET)], Options()).schedules
    schedule = schedules.programs["infer"]
    apart = make_plan(schedule, ahead=2)
    spans = {value.name: span for value, span in apart.values.items()}
    for first in range(5):
        for second in range(first + 1, first + 4):
            assert not spans[f"v{first}"].overlaps(spans[f"v{second}"])
    assert apart.arena_bytes > make_plan(schedule).arena_bytes


REQUESTS = st.lists(
    st.builds(
        lambda size, start, length: Request(size, Lifetime(start, start + length)),
        st.integers(0, 3000),
        st.integers(0, 12),
        st.integers(0, 6),
    ),
    max_size=24,
)


@given(REQUESTS)
@settings(max_examples=200, deadline=None)
def test_requests_alive_together_never_overlap(requests: list[Request]) -> None:
    offsets = assign_offsets(requests, lower_bound=0)
    assert len(offsets) == len(requests)
    for i, (a, start) in enumerate(zip(requests, offsets, strict=True)):
        assert start % 64 == 0
        for b, other in zip(requests[:i], offsets, strict=False):
            together = a.life.start <= b.life.end and b.life.start <= a.life.end
            if together and a.bytes and b.bytes:
                assert start + a.bytes <= other or other + b.bytes <= start


@given(REQUESTS)
@settings(max_examples=100, deadline=None)
def test_the_arena_is_near_the_lower_bound(requests: list[Request]) -> None:
    steps = range(20)
    bound = max(sum(aligned(r.bytes) for r in requests if r.life.start <= t <= r.life.end) for t in steps)
    offsets = assign_offsets(requests, bound)
    top = max((o + aligned(r.bytes) for o, r in zip(offsets, requests, strict=True)), default=0)
    # Interval packing is NP-hard; greedy packing of this size has never been seen above a quarter over the bound.
    assert bound <= top <= 1.25 * bound + 64
