"""The verifier catches each kind of corruption, and says where."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from edgec.graph.errors import InternalError
from edgec.graph.ir import Count, Graph, Node, Role, Value
from edgec.graph.ops import ALL_OPS, Add, BatchNorm, Clip, Relu, ReluGrad
from edgec.graph.ops.base import Op
from edgec.graph.parse import parse_graph
from edgec.graph.types import DType, tensor
from edgec.graph.verify import FORBIDDEN, Phase, VerifyError, verify_graph

TEXT = """\
graph train {
  input %x: f32[2,3]
  param %w: f32[3] trainable
  param %frozen: f32[3]
  state %v: f32[3]
  constant %c: f32[] = [0.5]
  scalar %lr: f32[]
  %a: f32[2,3] = add(%x, %w) @"Add_0"
  %b: f32[2,3] = clip(%a) {low=0.0, high=6.0} @"Clip_1"
  %d: f32[2,3] = mul(%b, %c)
  %s: f32[] = reduce_sum(%d) {axes=(0,1)}
  %w.new: f32[3] = mul(%w, %lr)
  output "loss" = %s
  update %w = %w.new
  loss "loss"
}
"""


def program() -> Graph:
    return parse_graph(TEXT)


def node_of(graph: Graph, name: str) -> Node:
    return next(value for value in graph.values() if value.name == name).producer


def stranger(shape: tuple[int, ...] = (2, 3)) -> Value:
    return Value("stranger", tensor(DType.F32, *shape), Role.INPUT)


CORRUPTIONS: dict[str, tuple[Callable[[Graph], None], str]] = {}


def corruption(message: str) -> Callable[[Callable[[Graph], None]], Callable[[Graph], None]]:
    """One way to break `program()`, and what the verifier says of it (a regular expression)."""

    def add(function: Callable[[Graph], None]) -> Callable[[Graph], None]:
        CORRUPTIONS[function.__name__] = (function, message)
        return function

    return add


@corruption(r"operand 0 of `clip` is read before it is defined")
def order(graph):
    graph.nodes[0], graph.nodes[1] = graph.nodes[1], graph.nodes[0]


@corruption(r"operand 1 of `add` belongs to no node or leaf")
def operand_from_elsewhere(graph):
    node_of(graph, "a").inputs[1] = stranger((3,))


@corruption(r"operand 0 of `mul` belongs to no node or leaf")
def node_missing(graph):
    graph.nodes.remove(node_of(graph, "b"))


@corruption(r"result 0 of `add` is defined twice")
def node_twice(graph):
    graph.nodes.insert(1, graph.nodes[0])


@corruption(r"result 0 of `clip` is not linked to its node")
def producer(graph):
    node_of(graph, "b").output.producer = graph.nodes[0]


@corruption(r"result 0 of `clip` is not linked to its node")
def result_index(graph):
    node_of(graph, "b").output.index = 1


@corruption(r"result 0 of `clip` is not linked to its node")
def result_with_role(graph):
    node_of(graph, "b").output.role = Role.INPUT


@corruption(r"2 values are called `a`")
def name_twice(graph):
    node_of(graph, "b").output.name = "a"


@corruption(r"the program does not know the name `sneaked` as taken")
def name_changed_behind_the_graph(graph):
    node_of(graph, "b").output.name = "sneaked"


@corruption(r"leaf `y` is listed as `x`")
def leaf_key(graph):
    graph.leaves["x"].name = "y"


@corruption(r"leaf `x` has no role")
def leaf_without_role(graph):
    graph.leaves["x"].role = None


@corruption(r"leaf `x` has a producer")
def leaf_with_producer(graph):
    graph.leaves["x"].producer = graph.nodes[0]


@corruption(r"leaf `v` is trainable, but no param")
def trainable_state(graph):
    graph.leaves["v"].trainable = True


@corruption(r"scalar `lr` is neither f32\[\] nor i32\[\]")
def scalar_with_shape(graph):
    graph.leaves["lr"].type = tensor(DType.F32, 1)


@corruption(r"scalar `lr` is neither f32\[\] nor i32\[\]")
def scalar_of_other_dtype(graph):
    graph.leaves["lr"].type = tensor(DType.F64)


@corruption(r"constant `c` has no data")
def constant_without_data(graph):
    graph.leaves["c"].data = None


@corruption(r"input `x` has data")
def input_with_data(graph):
    graph.leaves["x"].data = np.zeros((2, 3), np.float32)


@corruption(r"scalar `lr` has data")
def scalar_with_data(graph):
    graph.leaves["lr"].data = np.zeros((), np.float32)


@corruption(r"the data of `w` is float64\[3\], its type f32\[3\]")
def data_dtype(graph):
    graph.leaves["w"].data = np.zeros(3)


@corruption(r"the data of `w` is float32\[1, 3\], its type f32\[3\]")
def data_shape(graph):
    graph.leaves["w"].data = np.zeros((1, 3), np.float32)


@corruption(r"`b` does not know that it is operand 0 of `mul`")
def use_forgotten(graph):
    node_of(graph, "b").output.uses.clear()


@corruption(r"`a` does not know that it is operand 0 of `clip`")
def use_of_another_slot(graph):
    node_of(graph, "a").output.uses[:] = [(node_of(graph, "b"), 1)]


@corruption(r"`x` believes to be operand 0 of `%d: .* = mul\(%b, %c\)`, and is not")
def use_too_many(graph):
    graph.leaves["x"].uses.append((node_of(graph, "d"), 0))


@corruption(r"`x` believes to be operand 0 of `%a: ")
def use_twice(graph):
    graph.leaves["x"].uses *= 2


@corruption(r"`clip` gives f32\[2,3\], the program says f32\[3,2\]")
def result_type(graph):
    node_of(graph, "b").output.type = tensor(DType.F32, 3, 2)


@corruption(r"`clip` gives f32\[2,3\], the program says f64\[2,3\]")
def result_dtype(graph):
    node_of(graph, "b").output.type = tensor(DType.F64, 2, 3)


@corruption(r"`clip` gives f32\[2,3\], the program says f32\[2,3\], f32\[2,3\]")
def too_many_results(graph):
    node = node_of(graph, "b")
    node.outputs = (*node.outputs, Value("extra", node.output.type, producer=node, index=1))


@corruption(r"`add` does not type-check: add\(f32\[2,3\], f32\[4\]\): extents 3 and 4 meet")
def operand_type(graph):
    graph.leaves["w"].type = tensor(DType.F32, 4)


@corruption(r"`add` does not type-check: .* takes 2 operands, 1 given")
def operand_missing(graph):
    node_of(graph, "a").inputs.pop()


@corruption(r"attribute low of `clip` is np.float32\(0.0\), a float32, and not float")
def numpy_attribute(graph):
    node_of(graph, "b").op = Clip(np.float32(0), 6.0)


@corruption(r"attribute axes of `reduce_sum` is \[0, 1\], a list, and not tuple\[int, ...\]")
def list_attribute(graph):
    op = node_of(graph, "s").op
    node_of(graph, "s").op = type(op)([0, 1])


@corruption(r"attribute axes of `reduce_sum` is .*int64.*, a tuple, and not tuple\[int, ...\]")
def numpy_in_tuple_attribute(graph):
    op = node_of(graph, "s").op
    node_of(graph, "s").op = type(op)((np.int64(0), np.int64(1)))


@corruption(r"`relu` is not in ALL_OPS")
def op_of_elsewhere(graph):
    class Twin(Relu):
        pass

    node_of(graph, "b").op = Twin()


@corruption(r"output `y` is %stranger: f32\[2,3\], which the program does not define")
def output_from_elsewhere(graph):
    graph.outputs["y"] = stranger()


@corruption(r"the update of `w` is %stranger: f32\[3\], which the program does not define")
def update_from_elsewhere(graph):
    graph.updates[graph.leaves["w"]] = stranger((3,))


@corruption(r"the update of `w` is %a: f32\[2,3\], the leaf f32\[3\]")
def update_of_other_type(graph):
    graph.updates[graph.leaves["w"]] = node_of(graph, "a").output


@corruption(r"`frozen` is updated and is not trainable")
def update_of_frozen(graph):
    graph.updates[graph.leaves["frozen"]] = node_of(graph, "w.new").output


@corruption(r"`x` is updated and is neither param nor state")
def update_of_input(graph):
    graph.updates[graph.leaves["x"]] = node_of(graph, "a").output


@corruption(r"`stranger` is updated and is neither param nor state of the program")
def update_of_elsewhere(graph):
    graph.updates[Value("stranger", tensor(DType.F32, 3), Role.STATE)] = node_of(graph, "w.new").output


@corruption(r"the loss `lost` is no output")
def loss_missing(graph):
    graph.loss = "lost"


@corruption(r"the loss `loss` is f32\[2,3\], not one float")
def loss_not_scalar(graph):
    graph.outputs["loss"] = node_of(graph, "a").output


@corruption(r"output `loss` is counted by `n`, and one of them is no output")
def count_missing(graph):
    graph.counts["loss"] = Count("n", 0)


@corruption(r"output `loss` is counted along axis 0, which it lacks")
def count_of_no_axis(graph):
    graph.counts["loss"] = Count("loss", 0)


@corruption(r"`loss` counts and is f32\[\], not i64\[\]")
def count_of_floats(graph):
    graph.outputs["y"] = node_of(graph, "a").output
    graph.counts["y"] = Count("loss", 1)


def test_a_sound_program_passes_in_every_phase():
    for phase in (None, *Phase):
        verify_graph(program(), phase)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruption_is_caught(name):
    corrupt, message = CORRUPTIONS[name]
    graph = program()
    corrupt(graph)
    with pytest.raises(VerifyError, match=f"^program `train` is broken: {message}"):
        verify_graph(graph)


def test_a_broken_program_is_our_mistake_not_the_users():
    assert issubclass(VerifyError, InternalError)


def test_errors_quote_the_node_its_source_and_its_neighbours():
    graph = program()
    graph.nodes[2].inputs[1] = stranger(())
    with pytest.raises(VerifyError) as caught:
        verify_graph(graph)
    assert str(caught.value).splitlines() == [
        "program `train` is broken: operand 1 of `mul` belongs to no node or leaf of the program",
        '    %a: f32[2,3] = add(%x, %w) @"Add_0"',
        '    %b: f32[2,3] = clip(%a) {low=0.0, high=6.0} @"Clip_1"',
        "    %d: f32[2,3] = mul(%b, %stranger)",
        "                           ^^^^^^^^^",
        "    %s: f32[] = reduce_sum(%d) {axes=(0,1)}",
        "    %w.new: f32[3] = mul(%w, %lr)",
    ]
    graph = program()
    graph.nodes[0].output.type = tensor(DType.F32, 7)
    with pytest.raises(VerifyError) as caught:
        verify_graph(graph)
    assert str(caught.value).splitlines()[1:4] == [
        "  --> node `Add_0`",
        '    %a: f32[7] = add(%x, %w) @"Add_0"',
        "    ^^^^^^^^^^",
    ]


@pytest.mark.parametrize("phase", [Phase.IMPORTED, Phase.SPECIALISED])
def test_gradients_may_not_occur_before_they_are_derived(phase):
    graph = Graph("infer")
    x = graph.add_leaf(Role.INPUT, "x", tensor(DType.F32, 2))
    graph.emit(ReluGrad(), x, x, names=["dx"])
    verify_graph(graph)
    verify_graph(graph, Phase.DIFFERENTIATED)
    with pytest.raises(VerifyError, match=f"`relu_grad` may not occur in a program that is {phase.value}") as caught:
        verify_graph(graph, phase)
    assert re.search(r"= relu_grad\(%x, %x\)\n +\^{9}$", str(caught.value))


@pytest.mark.parametrize("phase", [Phase.SPECIALISED, Phase.DIFFERENTIATED, Phase.OPTIMISED])
def test_batch_norm_may_not_outlive_specialisation(phase):
    graph = Graph("infer")
    x = graph.add_leaf(Role.INPUT, "x", tensor(DType.F32, 1, 2, 3, 3))
    statistics = [graph.add_leaf(Role.PARAM, name, tensor(DType.F32, 2)) for name in "gbmv"]
    graph.emit(BatchNorm(), x, *statistics)
    verify_graph(graph, Phase.IMPORTED)
    with pytest.raises(VerifyError, match="`batch_norm` may not occur"):
        verify_graph(graph, phase)


def test_the_table_of_phases_covers_the_op_set():
    names = {op.name for op in ALL_OPS}
    assert set(FORBIDDEN) == set(Phase)
    assert all(forbidden <= names for forbidden in FORBIDDEN.values())
    backward = {op.name for op in ALL_OPS if op.name.endswith(("_grad", "_update"))}
    # As a forward op it is the transposed convolution.
    assert backward - {"conv2d_input_grad"} <= FORBIDDEN[Phase.IMPORTED]


def test_building_and_changing_a_graph_keeps_its_invariants():
    """The graph's own editing functions leave nothing for the verifier to find."""
    graph = program()
    b, d = node_of(graph, "b").output, node_of(graph, "d")
    added = graph.emit1(Add(), b, b, before=d)
    verify_graph(graph)
    graph.replace_uses(d.output, added)
    graph.remove(d)
    verify_graph(graph)
    graph.set_input(node_of(graph, "s"), 0, b)
    graph.remove(added.producer)
    graph.remove_leaf(graph.leaves["c"])
    graph.rename(b, "renamed")
    graph.rename(graph.leaves["x"], "image")
    verify_graph(graph)
    verify_graph(graph.clone())
    assert isinstance(graph.nodes[0].op, Op)
