"""A memory budget: plans that keep to it, the same bits, and an honest figure where it cannot be met."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.compiler.budget import Savings, counted_bytes, fit_budget
from edgec.compiler.byte_sizes import parse_bytes
from edgec.compiler.compile import CompileResult, compile_module, lower_module
from edgec.compiler.passbase import Options
from edgec.compiler.recompute import forward_nodes, kept_values, recompute
from edgec.compiler.train import Train
from edgec.graph import interp
from edgec.graph.errors import UserError
from edgec.graph.ir import Graph, Module
from edgec.graph.parse import parse_graph
from edgec.graph.verify import verify_graph
from edgec.tools.testing.plan_interp import PlanInterpreter
from edgec.tools.testing.programs import feeds, initialise, random_trains
from edgec.tools.testing.reference_backend import ReferenceBackend

LAYERS = 12


def chain(layers: int = LAYERS) -> Module:
    """Equal convolutions with hard-swish, then a dense layer: all of them cost the same to compute again."""
    lines = ["graph infer {", "input %x: f32[2,4,8,8]"]
    lines += [f"param %w{i}: f32[4,4,3,3]" for i in range(layers)] + ["param %fc: f32[256,3]"]
    before = "x"
    for i in range(layers):
        lines += [f"%c{i}: f32[2,4,8,8] = conv2d(%{before}, %w{i}) {{pads=(1,1,1,1)}}"]
        lines += [f"%h{i}: f32[2,4,8,8] = hard_swish(%c{i})"]
        before = f"h{i}"
    lines += [f"%flat: f32[2,256] = reshape(%{before}) {{shape=(2,256)}}", "%y: f32[2,3] = matmul(%flat, %fc)"]
    module = initialise(Module({"infer": parse_graph("\n".join([*lines, 'output "y" = %y', "}"]))}))
    for leaf in module.programs["infer"].leaves.values():
        if leaf.data is not None:
            leaf.data *= np.float32(0.3)  # activations that keep their size
    return module


def compiled(budget: int | str | None, skip: frozenset[str] = frozenset()) -> CompileResult:
    train = Train(batch=2, momentum=0.9, memory_budget=budget)
    result = compile_module(chain(), [ReferenceBackend()], Options(train=train, skip=skip))
    assert result is not None
    return result


def test_a_budget_is_kept_with_little_work_twice() -> None:
    free = compiled(None)
    whole = counted_bytes(free.schedules[0])
    arena = free.report.programs["train"].arena_bytes
    work = []
    for part in (1.0, 0.85, 0.75, 0.65):
        budget = whole - int((1 - part) * arena)
        result = compiled(budget)
        assert counted_bytes(result.schedules[0]) <= budget
        work.append(result.report.programs["train"].recomputed_macs)
    assert work[0] == 0 < work[1] < work[2] <= work[3] < free.report.programs["infer"].macs * 1.5


def test_a_step_has_the_same_bits() -> None:
    free = compiled(None)
    tight = compiled(counted_bytes(free.schedules[0]) - free.report.programs["train"].arena_bytes * 3 // 10)
    assert tight.report.programs["train"].recomputed_macs
    machines = [PlanInterpreter(result.artifact, result.images[0]) for result in (free, tight)]
    for step in range(3):
        arrays = feeds(free.module.programs["train"], seed=step) | {"lr": np.float32(0.01)}
        losses = [machine.run("train", arrays)["loss"] for machine in machines]
        assert losses[0] == losses[1]
    for leaf in free.module.programs["train"].updates:
        left, right = (machine.tensor(leaf.name) for machine in machines)
        np.testing.assert_array_equal(left, right, err_msg=leaf.name)


def test_the_choice_is_the_same_every_time() -> None:
    free = compiled(None)
    budget = counted_bytes(free.schedules[0]) - free.report.programs["train"].arena_bytes * 3 // 10
    names = [
        fit_budget(free.module, ReferenceBackend(), Options(train=Train(batch=2, momentum=0.9)), budget)
        for _ in range(2)
    ]
    assert names[0] == names[1] != Savings()


def test_a_budget_that_cannot_be_met_is_refused_with_the_figure_that_can() -> None:
    with pytest.raises(UserError) as caught:
        compiled("1KB")
    assert caught.value.code == "E0405"
    message = caught.value.message
    least = int(
        re.match(r"training needs at least ([\d,]+) bytes, and the budget is 1,024:", message)[1].replace(",", "")
    )
    rows = [int(row.replace(",", "")) for row in re.findall(r"\n +([\d,]+) ", message)]
    assert 0.95 * least <= sum(rows) <= least, "the rows do not make up the figure"
    assert "%" not in message and "fc (trained, or a state)" in message
    assert counted_bytes(compiled(least).schedules[0]) <= least
    with pytest.raises(UserError):
        compiled(least - 1)


def test_a_search_says_what_it_tries_and_ends() -> None:
    free, notes = compiled(None), []
    with pytest.raises(UserError, match="needs at least"):
        fit_budget(free.module, ReferenceBackend(), Options(train=Train(batch=2, momentum=0.9)), 1, notes.append)
    assert 10 < len(notes) < 60
    sizes = [float(re.fullmatch(r"memory budget: plan \d+, ([\d.]+) of 0.00 MB", note)[1]) for note in notes]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < sizes[0]


def test_without_the_pass_there_is_nothing_to_gain() -> None:
    free = counted_bytes(compiled(None).schedules[0])
    with pytest.raises(UserError, match=f"at least {free:,} bytes"):
        compiled(free - 1, skip=frozenset({"recompute_activations", "tile_chains"}))


@given(random_trains(), st.data())
@settings(max_examples=60, deadline=None)
def test_any_values_may_be_computed_again(graph: Graph, data: st.DataObject) -> None:
    if graph.loss is None or not graph.updates:
        return
    module = initialise(Module({"train": graph}))
    original = graph.clone()
    kept = kept_values(graph, forward_nodes(graph))
    again = data.draw(st.lists(st.sampled_from(kept), unique=True)) if kept else []
    made = recompute(graph, again)
    verify_graph(graph)
    assert bool(made) == bool(again)
    assert not forward_nodes(graph) & made, "what is computed again runs behind the guard"
    assert not set(kept_values(graph, forward_nodes(graph))) & set(again)
    result = lower_module(module, [ReferenceBackend()], Options())
    arrays = feeds(original)
    wanted = interp.run(original, arrays)
    if not np.isfinite(wanted.outputs["loss"]):
        return
    machine = PlanInterpreter(result.artifact, result.images[0])
    outputs = machine.run("train", arrays)
    for name, array in wanted.outputs.items():
        np.testing.assert_array_equal(outputs[name], array, err_msg=name)
    for name, array in wanted.updates.items():
        np.testing.assert_array_equal(machine.tensor(name), array, err_msg=name)


@pytest.mark.parametrize(
    ("text", "count"),
    [("256KB", 262144), ("1.5 MB", 1572864), ("200000", 200000), ("1gib", 1 << 30), ("12 B", 12)],
)
def test_sizes_as_people_write_them(text: str, count: int) -> None:
    assert parse_bytes(text) == count
    assert Train(memory_budget=text).memory_budget == count


@pytest.mark.parametrize("text", ["", "KB", "-1", "1e3", "256K", "1 2"])
def test_what_is_no_size(text: str) -> None:
    assert parse_bytes(text) is None
    with pytest.raises(UserError, match="memory_budget"):
        Train(memory_budget=text)
