"""Pass `tile_chains`: chains in strips compute what they did, with inner values that are never whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.compiler.pack import pack_artifact
from edgec.compiler.passbase import Options, Trace, run_pipeline
from edgec.compiler.pipeline import SCHEDULE_LEVEL, SCHEDULE_PASSES
from edgec.compiler.row_rules import row_rule
from edgec.compiler.schedule import TargetSchedules
from edgec.compiler.tile_search import choose_tilings, extra_macs, untiled_peak
from edgec.compiler.tiling import Tiling, chain_of, tile
from edgec.graph import interp
from edgec.graph.errors import InternalError
from edgec.graph.ir import Graph, Module, Role, Value
from edgec.graph.ops import Add, AvgPool2d, Clip, Concat, Conv2d, MaxPool2d, Mul, Relu
from edgec.graph.parse import parse_graph
from edgec.graph.types import DType, TensorType
from edgec.graph.verify import verify_graph
from edgec.tools.testing.plan_interp import PlanInterpreter
from edgec.tools.testing.programs import feeds, initialise
from edgec.tools.testing.reference_backend import SCALAR_TARGET, VECTOR_TARGET, ReferenceBackend

BLOCK = """graph infer {{
  input %x: f32[{n},8,16,16]
  param %a: f32[48,8,1,1]
  param %b: f32[48,1,3,3]
  param %c: f32[8,48,1,1]
  param %bias: f32[48]
  %in: f32[{n},8,16,16] = relu(%x)
  %e: f32[{n},48,16,16] = conv2d(%in, %a)
  %er: f32[{n},48,16,16] = relu(%e)
  %d: f32[{n},48,16,16] = conv2d(%er, %b) {{pads=(1,1,1,1), groups=48}}
  %shift: f32[48,1,1] = reshape(%bias) {{shape=(48,1,1)}}
  %ds: f32[{n},48,16,16] = add(%d, %shift)
  %dr: f32[{n},48,16,16] = relu(%ds)
  %p: f32[{n},8,16,16] = conv2d(%dr, %c)
  %y: f32[{n},8,16,16] = add(%p, %in)
  %m: f32[{n},8] = reduce_mean(%y) {{axes=(2,3), keepdims=false}}
  output "m" = %m
}}"""
CHAIN = ("e", "er", "d", "ds", "dr", "p", "y")


def block(images: int = 1) -> Graph:
    return initialise(Module({"infer": parse_graph(BLOCK.format(n=images))})).programs["infer"]


def planned(graph: Graph, tilings: list[Tiling], backend: ReferenceBackend | None = None) -> TargetSchedules:
    module = Module({graph.name: graph})
    schedules = TargetSchedules.of(module, backend or ReferenceBackend(), tilings={graph.name: tuple(tilings)})
    run_pipeline(SCHEDULE_PASSES, schedules, Options(), SCHEDULE_LEVEL, Trace())
    return schedules


def test_no_inner_value_is_whole_and_nothing_is_copied() -> None:
    free = planned(block(), []).programs["infer"]
    tiled = planned(block(), [Tiling(CHAIN, 1, 4)]).programs["infer"]
    assert tiled.plan.arena_bytes < 0.6 * free.plan.arena_bytes
    whole = 48 * 16 * 16 * 4
    assert all(value.type.bytes < whole for value in tiled.graph.values())
    moves = [group for group in tiled.groups if group.anchor in tiled.seams]
    assert moves and all(tiled.is_view(group) for group in moves), "strips lie in their operand and in the result"
    x = feeds(free.graph)
    np.testing.assert_allclose(
        interp.run(tiled.graph, x).outputs["m"], interp.run(free.graph, x).outputs["m"], rtol=1e-5
    )


def test_edges_differ_and_strips_between_them_are_the_same_kernels() -> None:
    tiled = planned(block(), [Tiling(CHAIN, 1, 2)]).programs["infer"]
    specs = {call.spec for lowering in tiled.lowerings.values() for call in lowering.calls}
    convolutions = [spec for spec in specs if "conv2d" in spec.stem]
    assert len(convolutions) <= 3 * 3, "top, middle and bottom of three layers"


def test_several_images_are_cut_into_images_first() -> None:
    free = planned(block(4), []).programs["infer"]
    (tiling,) = choose_tilings(free, free.plan.arena_bytes * 2 // 3)
    assert tiling.images < 4 and tiling.rows == 16
    tiled = planned(block(4), [tiling]).programs["infer"]
    assert tiled.plan.arena_bytes <= free.plan.arena_bytes * 2 // 3
    x = feeds(free.graph)
    np.testing.assert_array_equal(interp.run(tiled.graph, x).outputs["m"], interp.run(free.graph, x).outputs["m"])


@pytest.mark.parametrize("target", [SCALAR_TARGET, VECTOR_TARGET], ids=lambda target: target.name)
def test_the_search_keeps_to_its_room_with_few_rows_twice(target) -> None:
    free = planned(block(), [], ReferenceBackend(target)).programs["infer"]
    work = []
    for part in (0.8, 0.6, 0.45):
        room = int(free.plan.arena_bytes * part)
        tilings = choose_tilings(free, room)
        assert tilings
        again = planned(block(), tilings, ReferenceBackend(target)).programs["infer"]
        if target is VECTOR_TARGET:
            assert again.plan.arena_bytes <= room * 1.05
        work.append(sum(n.op.cost(tuple(v.type for v in n.inputs), (n.output.type,)).macs for n in again.graph.nodes))
    assert work == sorted(work)


def test_steps_of_others_between_those_of_a_chain_do_not_end_it() -> None:
    """Shapes of biases and scales of weights stand where their first reader does."""
    free = planned(block(), []).programs["infer"]
    assert any(free.is_view(group) for group in free.groups[1:-1])
    tilings = choose_tilings(free, free.plan.arena_bytes * 45 // 100)
    assert any({"e", "d", "ds"} <= set(tiling.values) for tiling in tilings)
    assert untiled_peak(free) < 0.2 * free.plan.arena_bytes


def test_a_plan_with_room_is_left_alone() -> None:
    free = planned(block(), []).programs["infer"]
    assert choose_tilings(free, free.plan.arena_bytes) == []


def test_what_is_no_chain_is_a_bug_of_whoever_asked() -> None:
    with pytest.raises(InternalError, match="no chain"):
        planned(block(), [Tiling((*CHAIN, "m"), 1, 4)])
    with pytest.raises(InternalError, match="no chain"):
        planned(block(), [Tiling(("nobody",), 1, 4)])


def test_what_is_kept_for_the_backward_part_comes_out_whole_and_before_the_guard() -> None:
    text = """graph train {
      input %x: f32[1,4,8,8]
      param %a: f32[16,4,1,1]
      param %c: f32[4,16,3,3]
      state %s: u8[1,2,8,8]
      %e: f32[1,16,8,8] = conv2d(%x, %a)
      %r: f32[1,16,8,8] = clip(%e) {low=0.0, high=6.0}
      %bits: u8[1,2,8,8] = inside_bits(%e) {low=0.0, high=6.0, axis=1}
      %p: f32[1,4,4,4] = conv2d(%r, %c) {pads=(1,1,1,1), strides=(2,2)}
      %loss: f32[] = reduce_mean(%p) {axes=(0,1,2,3), keepdims=false}
      output "loss" = %loss
      update %s = %bits
      loss "loss"
    }"""
    graph = initialise(Module({"train": parse_graph(text)})).programs["train"]
    free = graph.clone()
    schedule = planned(graph, [Tiling(("e", "r", "bits", "p"), 1, 1)]).programs["train"]
    forward = schedule.forward()
    assert all(node in forward for node in schedule.graph.nodes if node in schedule.seams)
    x = feeds(free)
    left, right = interp.run(free, x), interp.run(schedule.graph, x)
    np.testing.assert_array_equal(left.updates["s"], right.updates["s"])
    np.testing.assert_allclose(left.outputs["loss"], right.outputs["loss"], rtol=1e-5)


# -- any chain --------------------------------------------------------------------------------------------------------


@st.composite
def chains(draw: st.DrawFn) -> tuple[Graph, list[str]]:
    """A chain of random ops on maps of odd sizes with several results, and the names of its values."""
    graph = Graph("infer")
    images, channels = draw(st.integers(1, 2)), draw(st.sampled_from([1, 4]))
    shape = (images, channels, draw(st.integers(5, 14)), draw(st.sampled_from([4, 5])))
    x = graph.add_leaf(Role.INPUT, "x", TensorType(DType.F32, shape))
    values = [graph.emit1(Relu(), x, name="start")]
    count = draw(st.integers(2, 7))
    for _ in range(count):
        values.append(_node(draw, graph, values[1:] or values))
    inner = values[1:]
    handed_out = [v for v in inner[:-1] if not v.uses or draw(st.integers(0, 5)) == 0]
    for index, value in enumerate([*handed_out, inner[-1]]):
        graph.outputs[f"y{index}"] = value
    return initialise(Module({"infer": graph})).programs["infer"], [value.name for value in inner]


def _node(draw: st.DrawFn, graph: Graph, values: list[Value]) -> Value:
    x = draw(st.sampled_from(values[-2:]))
    images, channels, height, width = x.type.shape
    same = [v for v in values if v.type == x.type]
    narrow = [v for v in values if v.type.shape[2:] == x.type.shape[2:] and v.type.dtype is DType.F32]
    k, s = draw(st.sampled_from([1, 2, 3, 5, 7])), draw(st.sampled_from([1, 1, 2, 3]))
    pads = tuple(draw(st.integers(0, k // 2)) for _ in range(4))
    kind = draw(st.sampled_from(["conv", "depthwise", "pointwise", "act", "add", "scale", "concat", "max", "mean"]))
    fits = height + pads[0] + pads[2] >= k and width + pads[1] + pads[3] >= k
    if kind in ("conv", "depthwise", "max", "mean") and (not fits or height < 4):
        kind = "act"
    if kind == "conv":
        d = draw(st.sampled_from([1, 2])) if min(height, width) > 2 * k else 1
        w = graph.add_leaf(Role.PARAM, graph.fresh_name("w"), TensorType(DType.F32, (3, channels, k, k)))
        return graph.emit1(Conv2d(strides=(s, s), pads=pads, dilations=(d, d)), x, w)
    if kind == "depthwise":
        w = graph.add_leaf(Role.PARAM, graph.fresh_name("w"), TensorType(DType.F32, (channels, 1, k, k)))
        return graph.emit1(Conv2d(strides=(s, s), pads=pads, groups=channels), x, w)
    if kind == "pointwise":
        w = graph.add_leaf(Role.PARAM, graph.fresh_name("w"), TensorType(DType.F32, (4, channels, 1, 1)))
        return graph.emit1(Conv2d(), x, w)
    if kind in ("max", "mean"):
        pads = tuple(min(pad, (k - 1) // 2) for pad in pads)
        pool = MaxPool2d if kind == "max" else AvgPool2d
        return graph.emit1(pool(kernel_size=(k, k), strides=(s, s), pads=pads), x)
    if kind == "add":
        return graph.emit1(Add(), x, draw(st.sampled_from(same)))
    if kind == "scale":
        shape = draw(st.sampled_from([(channels, 1, 1), (1, channels, height, width), (images, channels, 1, 1), ()]))
        return graph.emit1(Mul(), x, graph.add_leaf(Role.PARAM, graph.fresh_name("g"), TensorType(DType.F32, shape)))
    if kind == "concat":
        return graph.emit1(Concat(axis=1), x, draw(st.sampled_from(narrow)))
    return graph.emit1(draw(st.sampled_from([Relu(), Clip(low=-0.5, high=0.5)])), x)


@given(chains(), st.data())
@settings(max_examples=60, deadline=None)
def test_any_chain_computes_the_same_in_strips(made: tuple[Graph, list[str]], data: st.DataObject) -> None:
    graph, names = made
    original = graph.clone()
    nodes = [node for node in graph.nodes if node.output.name in names]
    chain = chain_of(nodes, set(graph.results()))
    if chain is None:
        assert any(row_rule(node) is None for node in nodes)
        return
    images = data.draw(st.integers(1, chain.images))
    rows = data.draw(st.integers(1, chain.height))
    strips = chain.strips(rows)
    if strips is None:
        return
    work = sum(n.op.cost(tuple(v.type for v in n.inputs), (n.output.type,)).macs for n in nodes)
    extra = extra_macs(chain, strips) * chain.images
    tile(graph, chain, images, rows)
    verify_graph(graph)
    x = feeds(original)
    wanted, found = interp.run(original, x, dtype=np.float64), interp.run(graph, x, dtype=np.float64)
    for name, array in wanted.outputs.items():
        np.testing.assert_allclose(found.outputs[name], array, rtol=1e-12, atol=1e-12, err_msg=name)
    nodes = [node for node in graph.nodes if node.output.name != "start"]
    done = sum(n.op.cost(tuple(v.type for v in n.inputs), (n.output.type,)).macs for n in nodes)
    assert abs(done - work - extra) <= len(nodes), "the work on top is what was foreseen, to rounding"


@given(chains(), st.integers(1, 4), st.sampled_from([SCALAR_TARGET, VECTOR_TARGET]))
@settings(max_examples=25, deadline=None)
def test_any_tiled_program_is_planned_and_proved(made: tuple[Graph, list[str]], rows: int, target) -> None:
    graph, names = made
    nodes = [node for node in graph.nodes if node.output.name in names]
    chain = chain_of(nodes, set(graph.results()))
    if chain is None or chain.strips(rows) is None:
        return
    original = graph.clone()
    schedules = planned(graph, [Tiling(tuple(names), 1, rows)], ReferenceBackend(target))
    schedule = schedules.programs["infer"]
    image = schedules.backend.build([call.spec for lowering in schedule.lowerings.values() for call in lowering.calls])
    machine = PlanInterpreter(pack_artifact(Module({"infer": graph}), [(schedules, image)], {}), image)
    x = feeds(original)
    found, wanted = machine.run("infer", x), interp.run(original, x).outputs
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-4, err_msg=name)
