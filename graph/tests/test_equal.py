"""Structural equality: blind to inner names and sources, and to nothing else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgec.graph.equal import graph_difference, module_difference
from edgec.graph.ir import Graph, Module, Role
from edgec.graph.ops import Clip, Exp, Pad, Relu
from edgec.graph.parse import parse_graph
from edgec.graph.types import DType, tensor

TEXT = """\
graph train {
  input %x: f32[2]
  param %w: f32[2] trainable
  state %v: f32[2]
  constant %c: f32[] = [0.5]
  %a: f32[2] = add(%x, %w) @"Add_0"
  %b: f32[2] = clip(%a) {low=0.0, high=6.0}
  %d: f32[2] = mul(%b, %c)
  %s: f32[] = reduce_sum(%d) {axes=(0)}
  output "loss" = %s
  output "y" = %d
  update %w = %a
  update %v = %b
  loss "loss"
}
"""


def program(**changes: str) -> Graph:
    """The program, with pieces of its text replaced."""
    text = TEXT
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return parse_graph(text)


def changed(*replacements: tuple[str, str]) -> Graph:
    return program(**dict(replacements))


def test_a_program_equals_itself_and_its_clone():
    graph = program()
    assert graph_difference(graph, graph) is None
    assert graph_difference(graph, graph.clone()) is None


@pytest.mark.parametrize(
    "replacements",
    [
        [("%a", "%first")],
        [("%c", "%half")],
        [('@"Add_0"', '@"Other_7"')],
        [("%a", "%tmp"), ("%b", "%a"), ("%tmp", "%b")],
    ],
    ids=str,
)
def test_inner_names_and_sources_do_not_matter(replacements):
    assert graph_difference(program(), changed(*replacements)) is None
    assert graph_difference(changed(*replacements), program()) is None


@pytest.mark.parametrize(
    ("replacement", "message"),
    [
        (("graph train", "graph infer"), "the programs are called `train` and `infer`"),
        (("%x", "%image"), "only the second has the leaf `input %image: f32[2]`"),
        (
            ("%w: f32[2] trainable", "%w: f32[2]"),
            "leaf `param %w: f32[2] trainable` is `param %w: f32[2]` in the second",
        ),
        (("state %v: f32[2]", "param %v: f32[2]"), "leaf `state %v: f32[2]` is `param %v: f32[2]` in the second"),
        (("[0.5]", "[0.25]"), "node 2: operand 1 differs\n"),
        (("add(%x, %w)", "sub(%x, %w)"), "node 0: add and sub\n"),
        (("add(%x, %w)", "add(%w, %x)"), "node 0: operand 0 differs\n"),
        (("high=6.0", "high=5.0"), "node 1: attributes differ\n"),
        (("mul(%b", "mul(%a"), "node 2: operand 0 differs\n"),
        (('"y"', '"z"'), "outputs are loss, y and loss, z"),
        (('"y" = %d', '"y" = %a'), "output `y` is %d and %a"),
        (('"y" = %d', '"y" = %d counted by "loss" along 0'), "output `y` is counted differently"),
        (("update %w = %a", "update %w = %b"), "update `w` is %a and %b"),
        (("  update %v = %b\n", ""), "updates are w, v and w"),
        (('  loss "loss"\n', ""), "the loss is 'loss' and None"),
    ],
    ids=str,
)
def test_everything_else_matters(replacement, message):
    difference = graph_difference(program(), changed(replacement))
    assert difference is not None and difference.startswith(message)
    assert graph_difference(changed(replacement), program()) is not None


def test_leaves_of_one_role_are_told_apart_by_name():
    text = 'graph g { input %x: f32[2] input %z: f32[2] %y: f32[2] = sub(%x, %z) output "y" = %y }'
    swapped = text.replace("sub(%x, %z)", "sub(%z, %x)")
    assert graph_difference(parse_graph(text), parse_graph(swapped)).startswith("node 0: operand 0 differs")


def test_a_difference_between_nodes_quotes_both():
    difference = graph_difference(program(), changed(("high=6.0", "high=5.0")))
    assert difference.splitlines()[1:] == [
        "  %b: f32[2] = clip(%a) {low=0.0, high=6.0}",
        "  %b: f32[2] = clip(%a) {low=0.0, high=5.0}",
    ]


def test_the_order_of_leaves_and_nodes_matters():
    graph = program()
    graph.leaves = dict(reversed(graph.leaves.items()))
    assert graph_difference(program(), graph).startswith("leaves stand in another order: x, w, v and v, w, x")
    one, two = Graph("g"), Graph("g")
    for graph, ops in ((one, [Relu(), Exp()]), (two, [Exp(), Relu()])):
        x = graph.add_leaf(Role.INPUT, "x", tensor(DType.F32))
        for op in ops:
            graph.outputs[op.name] = graph.emit1(op, x)
    assert graph_difference(one, two).startswith("node 0: relu and exp")


def test_one_node_more():
    longer = program()
    longer.emit(Relu(), longer.leaves["x"], names=["r"])
    assert graph_difference(program(), longer) == "4 nodes and 5; only the second has\n  %r: f32[2] = relu(%x)"
    assert graph_difference(longer, program()) == "5 nodes and 4; only the first has\n  %r: f32[2] = relu(%x)"


def with_weights(array: np.ndarray | None) -> Graph:
    graph = program()
    graph.leaves["w"].data = array
    return graph


def test_data_is_compared_to_the_bit():
    zero = np.zeros(2, np.float32)
    nan = np.full(2, np.nan, np.float32)
    assert graph_difference(with_weights(zero), with_weights(zero.copy())) is None
    assert graph_difference(with_weights(nan), with_weights(nan.copy())) is None
    for other in (-zero, zero + 1, None):
        assert graph_difference(with_weights(zero), with_weights(other)).startswith("leaf `param %w")


def unary(make: Callable[[], object], shape: tuple[int, ...]) -> Graph:
    graph = Graph("g")
    graph.outputs["y"] = graph.emit1(make(), graph.add_leaf(Role.INPUT, "x", tensor(DType.F32, *shape)))
    return graph


def test_attributes_are_equal_if_they_mean_the_same():
    not_a_number = unary(lambda: Pad((0,), (1,), float("nan")), (2,))
    assert graph_difference(not_a_number, unary(lambda: Pad((0,), (1,), float("nan")), (2,))) is None
    assert graph_difference(unary(lambda: Clip(0, 6), ()), unary(lambda: Clip(0.0, 6.0), ())) is None
    negative_zero = unary(lambda: Pad((0,), (1,), -0.0), (2,))
    assert graph_difference(negative_zero, unary(lambda: Pad((0,), (1,), 0.0), (2,))) is not None


def test_modules():
    def module(**programs: Graph) -> Module:
        return Module(programs)

    def named(name: str, *replacements: tuple[str, str]) -> Graph:
        graph = changed(*replacements)
        graph.name = name
        return graph

    one = module(infer=named("infer"), train=named("train"))
    assert module_difference(one, one.clone()) is None
    assert module_difference(one, module(infer=named("infer"))) == "the programs are infer, train and infer"
    other = module(infer=named("infer"), train=named("train", ("high=6.0", "high=5.0")))
    assert module_difference(one, other).startswith("in program `train`: node 1: attributes differ")
