"""Removing many nodes at once."""

import pytest

from edgec.graph.errors import InternalError
from edgec.graph.ir import Graph, Role
from edgec.graph.ops.add import Add
from edgec.graph.ops.relu import Relu
from edgec.graph.types import DType, tensor
from edgec.graph.verify import verify_graph


def small_graph() -> Graph:
    graph = Graph("infer")
    x = graph.add_leaf(Role.INPUT, "x", tensor(DType.F32, 2))
    a = graph.emit1(Relu(), x, name="a")
    graph.emit1(Add(), graph.emit1(Add(), a, x, name="b"), a, name="c")
    graph.outputs["a"] = a
    return graph


def test_dead_nodes_go_and_their_names_are_free():
    graph = small_graph()
    graph.remove_all(graph.nodes[1:])
    assert [node.output.name for node in graph.nodes] == ["a"]
    assert graph.fresh_name("b") == "b"
    assert graph.outputs["a"].uses == []
    verify_graph(graph)


@pytest.mark.parametrize("removed", [0, 1])
def test_what_is_read_stays(removed: int):
    """The first node is an output; the second is read by the third."""
    graph = small_graph()
    before = list(graph.nodes)
    with pytest.raises(InternalError, match="is still read"):
        graph.remove_all([graph.nodes[removed]])
    assert graph.nodes == before
    verify_graph(graph)
