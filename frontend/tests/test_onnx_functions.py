"""Functions that a model defines itself, as torch's exporters write them: against onnx's own evaluator."""

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgec.frontend.onnx import read_onnx
from edgec.graph.errors import UserError
from edgec.graph.interp import run

X = np.arange(12, dtype=np.float32).reshape(3, 4) - 5
STANDARD, OWN = helper.make_opsetid("", 18), helper.make_opsetid("own", 1)


def model(functions: list, nodes: list, fixed: dict[str, np.ndarray] | None = None, opset: int = 18) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y"))
    x.type.tensor_type.shape.CopyFrom(helper.make_tensor_type_proto(1, X.shape).tensor_type.shape)
    tensors = [numpy_helper.from_array(array, name) for name, array in (fixed or {}).items()]
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    opsets = [helper.make_opsetid("", opset), OWN]
    return helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=10)


def function(name: str, inputs: str, outputs: str, nodes: list, opset=STANDARD, **arguments) -> onnx.FunctionProto:
    return helper.make_function("own", name, inputs.split(), outputs.split(), nodes, [opset, OWN], **arguments)


def call(op: str, inputs: list[str], output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], domain="own", **attributes)


def refers(node: onnx.NodeProto, **references: str) -> onnx.NodeProto:
    """The node with float attributes that its function is given."""
    for name, outer in references.items():
        node.attribute.append(AttributeProto(name=name, ref_attr_name=outer, type=AttributeProto.FLOAT))
    return node


def agree(proto: onnx.ModelProto) -> list[str]:
    """The ops of the imported graph, whose result is that of onnx's evaluator."""
    graph = read_onnx(proto).programs["infer"]
    np.testing.assert_allclose(
        run(graph, {"x": X}).outputs["y"], ReferenceEvaluator(proto).run(None, {"x": X})[0], rtol=1e-6, atol=1e-6
    )
    return [node.op.name for node in graph.nodes]


LEAKY = refers(helper.make_node("LeakyRelu", ["a"], ["b"]), alpha="slope")
REQUIRED = function("leaky", "a", "b", [LEAKY], attributes=["slope"])
DEFAULT = function("leaky", "a", "b", [LEAKY], attribute_protos=[helper.make_attribute("slope", 0.7)])
OUTER = function(
    "outer",
    "a",
    "c",
    [helper.make_node("Neg", ["a"], ["t"]), refers(call("leaky", ["t"], "c"), slope="beta")],
    attributes=["beta"],
)


@pytest.mark.parametrize(
    ("functions", "node", "slope"),
    [
        ([REQUIRED], call("leaky", ["x"], "y", slope=0.3), 0.3),
        ([REQUIRED], call("leaky", ["x"], "y"), 0.01),  # the operator's own default
        ([DEFAULT], call("leaky", ["x"], "y"), 0.7),
        ([DEFAULT], call("leaky", ["x"], "y", slope=0.3), 0.3),
        ([DEFAULT, OUTER], call("outer", ["x"], "y", beta=0.2), -0.2),
        ([DEFAULT, OUTER], call("outer", ["x"], "y"), -0.7),
    ],
)
def test_attributes(functions: list, node: onnx.NodeProto, slope: float):
    """Expected values are written out: onnx's evaluator knows no defaults of functions."""
    graph = read_onnx(model(functions, [node])).programs["infer"]
    x = X if slope > 0 else -X
    expected = np.where(x < 0, np.float32(abs(slope)) * x, x)
    np.testing.assert_allclose(run(graph, {"x": X}).outputs["y"], expected, rtol=1e-6)


def test_attributes_reach_the_graphs_inside():
    inner = helper.make_graph([LEAKY], "t", [], [helper.make_tensor_value_info("b", 1, None)])
    node = helper.make_node("If", ["c"], ["r"], then_branch=inner, else_branch=inner)
    branching = function("leaky", "a c", "r", [node], attributes=["slope"])
    graph = read_onnx(model([branching], [call("leaky", ["x", "k"], "y", slope=0.4)], {"k": np.array(True)}))
    actual = run(graph.programs["infer"], {"x": X}).outputs["y"]
    np.testing.assert_allclose(actual, np.where(X < 0, np.float32(0.4) * X, X), rtol=1e-6)


@pytest.mark.parametrize("inside", [11, 13])
def test_a_function_has_operator_sets_of_its_own(inside: int):
    """Softmax was over all axes from the given one on until opset 12."""
    flat = function("f", "a", "b", [helper.make_node("Softmax", ["a"], ["b"], axis=0)], helper.make_opsetid("", inside))
    graph = read_onnx(model([flat], [call("f", ["x"], "y")])).programs["infer"]
    whole = np.exp(X - X.max(axis=None if inside < 13 else 0))
    expected = whole / whole.sum(axis=None if inside < 13 else 0)
    np.testing.assert_allclose(run(graph, {"x": X}).outputs["y"], expected, rtol=1e-5)


def test_an_operator_set_out_of_range():
    old = function("f", "a", "b", [helper.make_node("Relu", ["a"], ["b"])], helper.make_opsetid("", 5))
    with pytest.raises(UserError, match="`f:y` .*: the function has opset 5; in functions edgec imports 7 to"):
        read_onnx(model([old], [call("f", ["x"], "y")]))


def test_names_inside_are_not_those_outside():
    """`x` and `t` stand for one thing in the function and for another around it; twice."""
    f = function("f", "x", "y", [helper.make_node("Neg", ["x"], ["t"]), helper.make_node("Exp", ["t"], ["y"])])
    nodes = [call("f", ["x"], "t"), helper.make_node("Add", ["t", "x"], ["s"]), call("f", ["s"], "y")]
    assert agree(model([f], nodes)) == ["neg", "exp", "add", "neg", "exp"]


def test_a_function_sees_nothing_around_it():
    f = function("f", "a", "b", [helper.make_node("Add", ["a", "x"], ["b"])])
    with pytest.raises(UserError, match="E0102.*node `Add:b` reads `x`, which nothing before it defines"):
        read_onnx(model([f], [call("f", ["x"], "y")]))


def test_optional_inputs_that_are_passed_on():
    f = function("f", "a low high", "b", [helper.make_node("Clip", ["a", "low", "high"], ["b"])])
    for inputs, low, high in (
        (["x"], -9, 9),
        (["x", "", "two"], -9, 2),
        (["x", "two", ""], 2, 9),
        (["x", "two"], 2, 9),
    ):
        graph = read_onnx(model([f], [call("f", inputs, "y")], {"two": np.float32(2)})).programs["infer"]
        np.testing.assert_array_equal(run(graph, {"x": X}).outputs["y"], np.clip(X, low, high))


def test_wrong_calls():
    f = function("f", "a", "b", [helper.make_node("Relu", ["a"], ["b"])])
    with pytest.raises(UserError, match="2 inputs and 1 outputs are given; the function has 1 and 1"):
        read_onnx(model([f], [call("f", ["x", "x"], "y")]))
    with pytest.raises(UserError, match="two functions have the same name"):
        read_onnx(model([f, f], [call("f", ["x"], "y")]))


def test_what_fails_inside_is_listed_with_its_caller():
    nodes = [helper.make_node("ImageDecoder", ["a"], ["t"]), helper.make_node("Foo", ["a"], ["u"], "foo")]
    f = function("f", "a", "b", [*nodes, helper.make_node("Add", ["t", "u"], ["b"])])
    with pytest.raises(UserError) as caught:
        read_onnx(model([f], [call("f", ["x"], "h"), helper.make_node("Bar", ["h"], ["y"], "bar")]))
    assert str(caught.value) == (
        "error[E0103]: the model has 3 nodes that cannot be imported:\n"
        "  `ImageDecoder:t` (ImageDecoder, opset 18) in `f:h` (f): the operator has no equivalent\n"
        "  `foo` (Foo, opset 18) in `f:h` (f): the operator has no equivalent\n"
        "  `bar` (Bar, opset 18): the operator has no equivalent\n"
        "  --> the given model"
    )
