"""Operators as models of their time have them, against onnxruntime: arguments that moved, meanings that changed."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgec.frontend.onnx import read_onnx
from edgec.graph.errors import UserError
from edgec.graph.interp import run
from edgec.graph.ops.dropout import Dropout

node = helper.make_node


def positive(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).uniform(0.5, 1.5, shape).astype(np.float32)


def model(opset: int, shape: tuple[int, ...], nodes: list, fixed: dict[str, np.ndarray], ir: int) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in fixed.items()]
    if ir < 4:  # initializers were inputs, too
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", inputs, [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


STATISTICS = {name: positive(3) for name in "sbmv"}
PLACES = {name: positive(3, 2, 2) for name in "sbmv"}
NORM = ["x", "s", "b", "m", "v"]
BOUND = {"high": np.float32(0.1)}

# opset, shape of x, nodes, initializers
OLD = {
    "squeeze": (7, (2, 3), [node("Unsqueeze", ["x"], ["a"], axes=[0, 2]), node("Squeeze", ["a"], ["y"], axes=[0])], {}),
    "squeeze 13": (
        13,
        (2, 3),
        [node("Unsqueeze", ["x", "axes"], ["a"]), node("Squeeze", ["a", "axes"], ["y"])],
        {"axes": np.array([0, 2])},
    ),
    "softmax of all axes": (7, (2, 3, 4), [node("Softmax", ["x"], ["y"])], {}),
    "softmax of the last axis": (13, (2, 3, 4), [node("Softmax", ["x"], ["y"])], {}),
    "log softmax": (11, (2, 3, 4, 2), [node("LogSoftmax", ["x"], ["y"], axis=2)], {}),
    "hardmax": (11, (2, 3, 4), [node("Hardmax", ["x"], ["y"], axis=1)], {}),
    "upsample 7": (7, (1, 2, 3, 4), [node("Upsample", ["x"], ["y"], mode="nearest", scales=[1.0, 1.0, 2.0, 2.0])], {}),
    "upsample 9": (
        9,
        (1, 2, 3, 4),
        [node("Upsample", ["x", "scales"], ["y"], mode="linear")],
        {"scales": np.float32([1, 1, 2, 2])},
    ),
    "resize 10": (
        10,
        (1, 2, 6, 8),
        [node("Resize", ["x", "scales"], ["y"], mode="linear")],
        {"scales": np.float32([1, 1, 0.5, 0.5])},
    ),
    "batch norm": (7, (2, 3, 2, 2), [node("BatchNormalization", NORM, ["y"], spatial=1)], STATISTICS),
    "batch norm of places": (8, (2, 3, 2, 2), [node("BatchNormalization", NORM, ["y"], spatial=0)], PLACES),
    "dropout": (7, (2, 3), [node("Dropout", ["x"], ["y", "mask"], ratio=0.3)], {}),
    "pad": (7, (2, 3), [node("Pad", ["x"], ["y"], pads=[0, 1, 0, 2], value=1.5)], {}),
    "pad by reflection": (7, (2, 3), [node("Pad", ["x"], ["y"], pads=[0, 1, 0, 2], mode="reflect")], {}),
    "clip": (7, (2, 3), [node("Clip", ["x"], ["y"], min=-0.5, max=0.5)], {}),
    "clip 11": (11, (2, 3), [node("Clip", ["x", "", "high"], ["y"])], BOUND),
    "slice": (7, (2, 3), [node("Slice", ["x"], ["y"], axes=[1], starts=[1], ends=[100])], {}),
    "slice of all axes": (7, (2, 3), [node("Slice", ["x"], ["y"], starts=[0, -2], ends=[1, -1])], {}),
    "top k": (7, (2, 3), [node("TopK", ["x"], ["y", "i"], k=2)], {}),
    "split": (7, (2, 3), [node("Split", ["x"], ["a", "y"], axis=1, split=[1, 2])], {}),
    "sum": (7, (2, 3), [node("ReduceSum", ["x"], ["y"], axes=[1], keepdims=0)], {}),
    "scatter": (
        9,
        (2, 3),
        [node("Scatter", ["x", "i", "u"], ["y"], axis=1)],
        {"i": np.array([[0], [1]]), "u": positive(2, 1)},
    ),
    "group norm 18": (
        18,
        (2, 4, 3),
        [node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2)],
        {"s": positive(2), "b": positive(2)},
    ),
}


@pytest.mark.parametrize("name", OLD)
def test_an_operator_of_its_time(name: str):
    opset, shape, nodes, fixed = OLD[name]
    proto = model(opset, shape, nodes, fixed, ir=3 if opset < 9 else 8)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    (actual,) = run(read_onnx(proto).programs["infer"], {"x": x}).outputs.values()
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ir", [3, 8])
@pytest.mark.parametrize("opset", range(1, 7))
def test_before_opset_7_onnx_converts(opset: int, ir: int):
    """The larger operand's axis is named; initializers are inputs or not."""
    add = node("Add", ["x", "w"], ["y"], broadcast=1, axis=1)
    graph = read_onnx(model(opset, (2, 3, 4), [add], {"w": positive(3)}, ir)).programs["infer"]
    x = positive(2, 3, 4)
    np.testing.assert_allclose(run(graph, {"x": x}).outputs["y"], x + positive(3)[:, None], rtol=1e-6)


@pytest.mark.parametrize("opset", [4, 6])
def test_an_old_network(opset: int):
    """As exporters of 2017 wrote them."""
    nodes = [
        node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3]),
        node("Add", ["c", "bias"], ["d"], broadcast=1, axis=1),
        node("PRelu", ["d", "slope"], ["r"]),
        node("BatchNormalization", ["r", *"sbmv"], ["n", "mean", "var"], is_test=1),
        node("Dropout", ["n"], ["p", "mask"], is_test=1),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "dense", "offset"], ["g"], broadcast=1, transB=1),
        node("Sub", ["g", "one"], ["h"], broadcast=1),
        node("Softmax", ["h"], ["y"]),
    ]
    nodes[3].output[:] = ["n"]
    fixed = {"w": positive(4, 3, 3, 3) - 1, "bias": positive(4), "slope": positive(4), "one": np.float32([1])}
    fixed |= {name: positive(4) for name in "sbmv"} | {"dense": positive(5, 16), "offset": positive(5)}
    x = np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32)
    graph = read_onnx(model(opset, x.shape, nodes, fixed, ir=3)).programs["infer"]
    nodes[1:3] = [
        node("Reshape", ["bias", "channels"], ["b4"]),
        node("Reshape", ["slope", "channels"], ["s4"]),
        node("Add", ["c", "b4"], ["d"]),
        node("PRelu", ["d", "s4"], ["r"]),
    ]
    for item in nodes:
        del item.attribute[:]
    nodes[-3].attribute.append(helper.make_attribute("transB", 1))
    modern = model(9, x.shape, nodes, fixed | {"channels": np.array([4, 1, 1])}, ir=8)
    (expected,) = onnxruntime.InferenceSession(modern.SerializeToString()).run(None, {"x": x})
    np.testing.assert_allclose(run(graph, {"x": x}).outputs["y"], expected, rtol=1e-4, atol=1e-6)


def test_statistics_of_a_batch_are_refused_before_opset_14():
    nodes = [node("BatchNormalization", NORM, ["y", "mean", "var", "saved_mean", "saved_var"])]
    with pytest.raises(UserError, match="in training mode; export the model for inference"):
        read_onnx(model(12, (2, 3, 2, 2), nodes, STATISTICS, ir=8))


def test_dropout_in_training_mode_is_one_of_the_training_step():
    fixed = {"ratio": np.float32(0.5), "training": np.array(True)}
    graph = read_onnx(model(12, (2, 3), [node("Dropout", ["x", "ratio", "training"], ["y"])], fixed, ir=8))
    assert [n.op for n in graph.programs["infer"].nodes] == [Dropout(0.5)]
