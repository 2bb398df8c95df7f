"""retyped: a copy in other element types."""

import numpy as np

from edgec.graph.equal import graph_difference
from edgec.graph.parse import parse_graph
from edgec.graph.retype import retyped
from edgec.graph.text import print_graph
from edgec.graph.types import DType

PROGRAM = """
graph train {
  input %x: f64[2]
  input %n: i64[2]
  param %w: f64[2] = [0.1, 2.0] trainable
  scalar %rows: i32[]
  %count: f64[2] = cast(%n) {to="f64"}
  %scaled: f64[2] = mul(%x, %w)
  %loss: f64[2] = add(%scaled, %count)
  %half: f16[2] = cast(%loss) {to="f16"}
  output "loss" = %loss
  output "half" = %half
  update %w = %loss
  loss "loss"
}
"""


def test_leaves_and_casts_are_retyped_and_the_rest_follows() -> None:
    graph = parse_graph(PROGRAM)
    copy = retyped(graph, {DType.F64: DType.F32})
    assert graph_difference(copy, parse_graph(PROGRAM.replace("f64", "f32"))) is None
    assert copy.leaves["w"].data.dtype == np.float32
    assert graph_difference(graph, parse_graph(PROGRAM)) is None  # the original stands


def test_nothing_to_retype_is_a_copy() -> None:
    graph = parse_graph(PROGRAM)
    copy = retyped(graph, {})
    assert print_graph(copy) == print_graph(graph)
    assert not set(copy.values()) & set(graph.values())
