"""Pass `choose_storage`: orders in memory, the copies they need, and what becomes a view."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.compiler.passbase import Options
from edgec.compiler.passes.choose_storage import choose_storage
from edgec.compiler.passes.commit_updates import commit_updates
from edgec.compiler.passes.fuse_epilogue import fuse_epilogue
from edgec.compiler.schedule import Schedule, TargetSchedules, is_copy, same_order, verify_schedule
from edgec.graph.ir import Module
from edgec.graph.parse import parse_graph
from edgec.runtime.abi import Storage
from edgec.tools.testing.reference_backend import SCALAR_TARGET, VECTOR_TARGET, ReferenceBackend


def stored(text: str, backend: ReferenceBackend | None = None) -> Schedule:
    graph = parse_graph(text)
    subject = TargetSchedules.of(Module({graph.name: graph}), backend or ReferenceBackend(VECTOR_TARGET))
    for step in (commit_updates, fuse_epilogue, choose_storage):
        step(subject, Options())
    verify_schedule(subject.programs[graph.name])
    return subject.programs[graph.name]


CNN = """graph infer {{
  input %x: f32[2,{channels},4,4]
  param %w: f32[8,{channels},1,1]
  %c: f32[2,8,4,4] = conv2d(%x, %w)
  %y: f32[2,8,4,4] = relu(%c)
  output "y" = %y
}}"""


def copies(schedule: Schedule) -> list[str]:
    return [node.output.name for node in schedule.graph.nodes if is_copy(node)]


def test_inputs_and_outputs_stay_row_major_behind_copies() -> None:
    schedule = stored(CNN.format(channels=3))
    assert copies(schedule) == ["x.copy", "y.copy"]
    perms = {v.name: s.perm for v, s in schedule.storage.items() if v.type.rank == 4 and v.name != "w"}
    last = (0, 2, 3, 1)
    first = (0, 1, 2, 3)
    assert perms == {"x": first, "x.copy": last, "c": last, "y": last, "y.copy": first}


def test_an_image_of_one_channel_needs_no_copy() -> None:
    assert copies(stored(CNN.format(channels=1))) == ["y.copy"]


def test_a_row_major_target_needs_no_copies() -> None:
    assert copies(stored(CNN.format(channels=3), ReferenceBackend(SCALAR_TARGET))) == []


def test_copies_do_not_depend_on_rules_that_look_at_producers() -> None:
    """A backend that takes what follows a reshape for row-major must still get its feature maps."""

    class Backend(ReferenceBackend):
        def activation_storage(self, values):
            def behind_reshape(value):
                return value.producer is not None and value.producer.op.name == "reshape"

            chosen = super().activation_storage(values)
            return {v: Storage.row_major(v.type.shape) if behind_reshape(v) else s for v, s in chosen.items()}

    schedule = stored(CNN.format(channels=3), Backend())
    (copy,) = [v for v in schedule.storage if v.name == "x.copy"]
    assert schedule.storage[copy].perm == (0, 2, 3, 1)


RESHAPES = """graph infer {{
  input %x: f32[2,8,{size},{size}]
  %r: f32[2,8,{size},{size}] = relu(%x)
  %v: f32[2,{flat}] = reshape(%r) {{shape=(2,{flat})}}
  %y: f32[2,{flat}] = exp(%v)
  output "y" = %y
}}"""


@pytest.mark.parametrize(("size", "view"), [(1, True), (4, False)])
def test_a_reshape_is_a_view_exactly_if_it_moves_nothing(size: int, view: bool) -> None:
    schedule = stored(RESHAPES.format(size=size, flat=8 * size * size))
    (group,) = [g for g in schedule.groups if g.anchor.outputs[0].name == "v"]
    assert schedule.is_view(group) is view


def test_a_gradient_and_a_scaled_weight_lie_as_the_weight() -> None:
    schedule = stored(
        """graph train {
          input %x: f32[1,8,4,4]
          param %w: f32[8,8,1,1] trainable
          param %s: f32[8,1,1,1]
          state %m: f32[8,8,1,1]
          scalar %lr: f32[]
          %scaled: f32[8,8,1,1] = mul(%w, %s)
          %y: f32[1,8,4,4] = conv2d(%x, %scaled)
          %loss: f32[] = reduce_mean(%y) {axes=(0,1,2,3), keepdims=false}
          %g: f32[8,8,1,1] = conv2d_weight_grad(%x, %y) {kernel_size=(1,1)}
          %e: f32[8,8,1,1] = exp(%g)
          %w.new: f32[8,8,1,1], %m.new: f32[8,8,1,1] = sgd_update(%w, %e, %lr, %m) {momentum=0.9}
          output "loss" = %loss
          update %w = %w.new
          update %m = %m.new
          loss "loss"
        }"""
    )
    by_name = {v.name: s for v, s in schedule.storage.items()}
    panels = Storage((8, 8, 1, 1), (2, 3, 1, 0), 4)
    assert all(by_name[name] == panels for name in ("w", "scaled", "g", "e", "w.new", "m", "m.new"))
    assert by_name["y"] == Storage.channels_last((1, 8, 4, 4))


OUTPUTS = {
    "an input": ('output "y" = %x', ["x.copy"]),
    "a view of an input": ('%v: f32[4,1] = reshape(%x) {shape=(4,1)}\noutput "y" = %v', ["v.copy"]),
    "the same value twice": ('%e: f32[4] = exp(%x)\noutput "y" = %e\noutput "z" = %e', []),
    "one leaf twice": ('output "y" = %x\noutput "z" = %x', ["x.copy"]),
    "a view of a new parameter": (
        """%p.new: f32[4] = exp(%x)
        %v: f32[4,1] = reshape(%p.new) {shape=(4,1)}
        output "y" = %v
        update %p = %p.new""",
        ["v.copy"],
    ),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_every_output_has_memory_of_its_own(case: str) -> None:
    body, wanted = OUTPUTS[case]
    schedule = stored("graph infer {\ninput %x: f32[4]\nparam %p: f32[4] trainable\n" + body + "\n}")
    assert copies(schedule) == wanted


@st.composite
def _two_storages(draw: st.DrawFn) -> tuple[Storage, Storage]:
    extents = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    merged = [int(np.prod(extents[:2])), *extents[2:]] if draw(st.booleans()) else extents
    pair = []
    for dims in (extents, merged):
        perm = tuple(draw(st.permutations(range(len(dims)))))
        pair.append(Storage(tuple(dims), perm, draw(st.sampled_from([0, 1, 2, 3]))))
    return pair[0], pair[1]


@given(_two_storages())
@settings(max_examples=300)
def test_same_order_says_what_memory_says(pair: tuple[Storage, Storage]) -> None:
    a, b = pair
    numbers = np.arange(a.size)
    assert same_order(a, b) == np.array_equal(a.pack(numbers), b.pack(numbers))
