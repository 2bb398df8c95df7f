"""The reference interpreter: feeds, precision, updates, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
import pytest

from edgec.graph.errors import InternalError, UserError
from edgec.graph.interp import run
from edgec.graph.ir import Graph, Role
from edgec.graph.ops import Mul, Relu
from edgec.graph.parse import parse_graph
from edgec.graph.text import print_graph
from edgec.graph.types import DType, tensor

TEXT = """\
graph train {
  input %x: f32[2,3]
  input %labels: i64[2]
  param %w: f32[3] trainable
  state %v: f32[3]
  constant %third: f32[] = [0.1]
  scalar %lr: f32[]
  %a: f32[2,3] = mul(%x, %w)
  %b: f32[2,3] = mul(%a, %third)
  %p: f32[2,3] = softmax(%b) {axis=1}
  %loss: f32[] = reduce_sum(%p) {axes=(0,1)}
  %step: f32[3] = mul(%w, %lr)
  %w.new: f32[3] = sub(%w, %step)
  output "loss" = %loss
  output "p" = %p
  update %w = %w.new
  update %v = %step
}
"""
WEIGHT = np.array([1.0, -2.0, 3.0], np.float32)


def program() -> Graph:
    graph = parse_graph(TEXT)
    graph.leaves["w"].data = WEIGHT.copy()
    graph.leaves["v"].data = np.zeros(3, np.float32)
    return graph


def feeds(**changes: object) -> dict:
    given = {"x": np.ones((2, 3), np.float32), "labels": np.array([0, 2]), "lr": np.float32(0.5)}
    return {name: value for name, value in (given | changes).items() if value is not None}


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x)
    return powers / powers.sum(axis=1, keepdims=True)


def test_outputs_by_name_and_updates_by_leaf():
    results = run(program(), feeds())
    expected = softmax(np.tile(WEIGHT * np.float64(0.1), (2, 1)))
    assert list(results.outputs) == ["loss", "p"] and list(results.updates) == ["w", "v"]
    assert results.outputs["p"].dtype == np.float32
    np.testing.assert_allclose(results.outputs["p"], expected, rtol=1e-6)
    np.testing.assert_allclose(results.outputs["loss"], 2, rtol=1e-6)
    np.testing.assert_array_equal(results.updates["w"], WEIGHT / 2)
    np.testing.assert_array_equal(results.updates["v"], WEIGHT / 2)


def test_nothing_of_the_graph_or_the_feeds_changes():
    graph, given = program(), feeds()
    text = print_graph(graph)
    results = run(graph, given)
    for array in (*results.outputs.values(), *results.updates.values()):
        array += 1
    assert print_graph(graph) == text
    np.testing.assert_array_equal(given["x"], np.ones((2, 3)))


def test_f64_computes_every_float_in_double():
    seen: dict[str, np.ndarray] = {}
    results = run(program(), feeds(), np.float64, observe=seen.__setitem__)
    assert {name: a.dtype for name, a in seen.items() if a.dtype != np.float64} == {"labels": np.dtype(np.int64)}
    tenth = np.float64(np.float32(0.1))  # the constant is what it was, only wider
    np.testing.assert_allclose(results.outputs["p"], softmax(np.tile(WEIGHT * tenth, (2, 1))), rtol=1e-15)


def test_f64_keeps_the_digits_of_a_feed():
    results = run(program(), feeds(lr=0.1), np.float64)
    np.testing.assert_allclose(results.updates["v"], WEIGHT * np.float64(0.1), rtol=1e-16)


def test_observe_sees_every_value_once_in_order():
    graph = program()
    names: list[str] = []
    run(graph, feeds(), observe=lambda name, _: names.append(name))
    assert names == [value.name for value in graph.values()]


def test_a_param_or_state_may_be_fed():
    results = run(program(), feeds(w=np.zeros(3, np.float32)))
    np.testing.assert_array_equal(results.updates["w"], np.zeros(3))


def test_values_are_dropped_after_their_last_reader_unless_they_are_results():
    graph = Graph("g")
    x = graph.add_leaf(Role.INPUT, "x", tensor(DType.F32, 2))
    y = graph.emit1(Relu(), x)
    graph.outputs["square"] = graph.emit1(Mul(), y, y)  # both slots of one reader
    graph.outputs |= {"x": x, "y": y}
    results = run(graph, {"x": np.array([-1, 3], np.float32)})
    assert {name: array.tolist() for name, array in results.outputs.items()} == {
        "square": [0, 9],
        "x": [-1, 3],
        "y": [0, 3],
    }


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"image": 1.0}, "E0601", "program `train` has no input `image`(.|\n)*hint: it has: x, labels, w, v, lr"),
        ({"third": 1.0}, "E0601", "program `train` has no input `third`"),
        ({"a": 1.0}, "E0601", "program `train` has no input `a`"),
        ({"x": None}, "E0601", "nothing is fed for input `x`"),
        ({"lr": None}, "E0601", "nothing is fed for scalar `lr`"),
        ({"x": np.ones((3, 2), np.float32)}, "E0603", r"`x` has shape \(3, 2\), program `train` takes f32\[2,3\]"),
        ({"lr": np.ones(1, np.float32)}, "E0603", r"`lr` has shape \(1,\)"),
        ({"x": np.ones((2, 3), np.int32)}, "E0602", r"`x` holds int32, program `train` takes f32"),
        ({"labels": np.array([0.0, 1.0])}, "E0602", "`labels` holds float64"),
        ({"labels": np.array([True, False])}, "E0602", "`labels` holds bool"),
        ({"labels": np.array(["a", "b"])}, "E0602", "`labels` holds <U1"),
        ({"x": np.ones((2, 3), complex)}, "E0602", "`x` holds complex128"),
    ],
    ids=str,
)
def test_what_is_fed_must_fit(changes, code, message):
    with pytest.raises(UserError, match=message) as caught:
        run(program(), feeds(**changes))
    assert caught.value.code == code


def test_a_param_without_data_must_be_fed():
    graph = program()
    graph.leaves["w"].data = None
    with pytest.raises(UserError, match="nothing is fed for param `w`"):
        run(graph, feeds())


def test_other_widths_of_a_kind_are_taken_if_nothing_is_lost():
    narrow = run(program(), feeds(labels=np.array([0, 2], np.int32), x=np.ones((2, 3)))).outputs
    np.testing.assert_array_equal(narrow["p"], run(program(), feeds()).outputs["p"])
    graph = Graph("g")
    graph.outputs["y"] = graph.add_leaf(Role.INPUT, "x", tensor(DType.U8))
    assert run(graph, {"x": np.int64(255)}).outputs["y"] == 255
    with pytest.raises(UserError, match="E0602"):
        run(graph, {"x": np.int64(256)})


def test_low_precision_programs_run_in_double_too():
    graph = Graph("g")
    x = graph.add_leaf(Role.INPUT, "x", tensor(DType.BF16, 2))
    graph.outputs["y"] = graph.emit1(Mul(), x, graph.constant(np.array(0.3, ml_dtypes.bfloat16)))
    given = {"x": np.array([1.0, 3.0], ml_dtypes.bfloat16)}
    assert run(graph, given).outputs["y"].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(run(graph, given, np.float64).outputs["y"], [0.30078125, 0.90234375])


def test_infinities_and_nan_pass_without_warning(recwarn):
    graph = parse_graph('graph g { input %x: f32[2] %y: f32[2] = div(%x, %x) %z: f32[2] = exp(%y) output "z" = %z }')
    z = run(graph, {"x": np.array([0.0, np.inf], np.float32)}).outputs["z"]
    assert np.isnan(z).all() and not recwarn.list


@pytest.mark.parametrize("wrong", [np.zeros(2), np.zeros(3, np.float32), np.float32(0), [0.0, 0.0]], ids=repr)
def test_a_reference_that_breaks_its_type_rule_is_our_bug(wrong):
    @dataclass(frozen=True)
    class Broken(Relu):
        def reference(self, *inputs):
            return (wrong,)

    graph = Graph("g")
    graph.outputs["y"] = graph.emit1(Broken(), graph.add_leaf(Role.INPUT, "x", tensor(DType.F32, 2)))
    with pytest.raises(InternalError, match="the reference of relu gives"):
        run(graph, {"x": np.zeros(2, np.float32)})
