"""activate_dropout: one generator for all, a stream for each, a step that counts, nothing outside training."""

import numpy as np
import pytest

from edgec.compiler.passbase import Options
from edgec.compiler.passes.activate_dropout import STEP, activate_dropout
from edgec.compiler.pipeline import transform_module
from edgec.compiler.train import Train
from edgec.graph.errors import UserError
from edgec.graph.interp import run
from edgec.graph.ir import Graph, Module, Role, Value
from edgec.graph.ops.dropout import Dropout
from edgec.graph.ops.matmul import MatMul
from edgec.graph.ops.relu import Relu
from edgec.graph.parse import parse_module
from edgec.graph.types import DType, TensorType
from edgec.tools.testing.pass_check import check_becomes

BEFORE = """
graph train {
  input %x: f32[2,3]
  %a: f32[2,3] = dropout(%x) {rate=0.5}
  %b: f32[2,3] = relu(%a)
  %y: f32[2,3] = dropout(%b) {rate=0.25}
  output "y" = %y
}
"""
AFTER = """
graph train {
  input %x: f32[2,3]
  state %"dropout/seed": i32[] = [7]
  state %"dropout/step": i32[] = [0]
  constant %one: i32[] = [1]
  %a: f32[2,3] = dropout(%x, %"dropout/seed", %"dropout/step") {rate=0.5}
  %b: f32[2,3] = relu(%a)
  %y: f32[2,3] = dropout(%b, %"dropout/seed", %"dropout/step") {rate=0.25, stream=1}
  %next: i32[] = add(%"dropout/step", %one)
  output "y" = %y
  update %"dropout/step" = %next
}
"""


def test_each_dropout_has_a_stream_and_the_step_counts() -> None:
    check_becomes(activate_dropout, BEFORE, AFTER, Options(train=Train(seed=7)))


def test_it_can_be_switched_off() -> None:
    assert not activate_dropout(parse_module(BEFORE), Options(train=Train(dropout="off")))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="dropout"):
        Train(dropout="sometimes")
    with pytest.raises(UserError, match="seed"):
        Train(seed=-1)


def model() -> Module:
    graph, rng = Graph("infer"), np.random.default_rng(0)

    def weight(name: str, *shape: int) -> Value:
        return graph.add_leaf(Role.PARAM, name, TensorType(DType.F64, shape), data=rng.standard_normal(shape))

    x = graph.add_leaf(Role.INPUT, "x", TensorType(DType.F64, (1, 6)))
    h = graph.emit1(Dropout(0.5), graph.emit1(Relu(), graph.emit1(MatMul(), x, weight("v", 6, 16))))
    graph.outputs["y"] = graph.emit1(MatMul(), graph.emit1(Dropout(0.0), h), weight("w", 16, 3))
    return Module({"infer": graph})


def test_a_step_drops_what_the_generator_says_and_its_gradient_the_same() -> None:
    """The gradient by finite differences of the step's own loss, with the same decisions."""
    module = model()
    transform_module(module, Options(train=Train(batch=4, seed=3)))
    train = module.programs["train"]
    assert not any(isinstance(node.op, Dropout) for name in ("infer", "eval") for node in module.programs[name].nodes)
    assert [node.op for node in train.nodes if isinstance(node.op, Dropout)] == [Dropout(0.5)] * 2
    rng = np.random.default_rng(1)
    feeds = {"x": rng.standard_normal((4, 6)), "labels": np.array([0, 1, 2, 0]), "lr": np.float32(1)}

    def loss(**held: np.ndarray) -> float:
        return float(run(train, {**feeds, **held}).outputs["loss"])

    results = run(train, feeds)
    assert results.updates[STEP] == 1
    assert loss() != loss(**{STEP: np.array(1, np.int32)}), "every step draws anew"
    v = train.leaves["v"].data
    gradient = v - results.updates["v"]
    for place in [(0, 0), (3, 7), (5, 15), (2, 4)]:
        shift = np.zeros_like(v)
        shift[place] = 1e-6
        assert abs((loss(v=v + shift) - loss(v=v - shift)) / 2e-6 - gradient[place]) < 1e-7
    assert np.abs(gradient).max() > 1e-3


def test_off_is_the_model_without() -> None:
    module = model()
    transform_module(module, Options(train=Train(batch=4, dropout="off")))
    assert not any(isinstance(node.op, Dropout) for graph in module.programs.values() for node in graph.nodes)
