"""Tensors without elements, as models have them: an empty cache, a slice of nothing, a sum of no terms."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgec.frontend.onnx import read_onnx
from edgec.graph.interp import run
from edgec.graph.ops.matmul import MatMul
from edgec.graph.verify import verify_graph
from edgec.tools.testing.models import one_node_onnx

N = helper.make_node
FIXED = {
    "none": np.zeros((0, 3), np.float32),
    "zero": np.array([0]),
    "one": np.array([1]),
    "pads": np.array([1, 0, 1, 0]),
    "places": np.zeros((0, 1), np.int64),
}
CASES = {
    "beside": [N("Concat", ["none", "x", "none"], ["y"], axis=0)],
    "alone": [N("Concat", ["none", "none"], ["t"], axis=1), N("Identity", ["t"], ["y"])],
    "cut": [N("Slice", ["x", "one", "zero", "zero"], ["y"])],
    "cut_and_joined": [N("Slice", ["x", "one", "one", "zero"], ["t"]), N("Concat", ["t", "x"], ["y"], axis=0)],
    "elementwise": [N("Slice", ["x", "one", "zero", "zero"], ["t"]), N("Mul", ["t", "row"], ["y"])],
    "sum": [N("Slice", ["x", "one", "zero", "zero"], ["t"]), N("ReduceSum", ["t", "zero"], ["y"], keepdims=0)],
    "product": [
        N("Transpose", ["none"], ["a"]),
        N("Slice", ["x", "one", "one"], ["b"]),
        N("MatMul", ["a", "b"], ["y"]),
    ],
    "padded": [N("Slice", ["x", "one", "zero", "zero"], ["t"]), N("Pad", ["t", "pads"], ["y"])],
    "nothing_written": [N("Slice", ["x", "one", "zero", "zero"], ["t"]), N("ScatterND", ["x", "places", "t"], ["y"])],
    "none_picked": [N("Squeeze", ["places", "one"], ["i"]), N("Gather", ["x", "i"], ["y"])],
    "expanded": [N("Slice", ["row", "one", "zero", "zero"], ["t"]), N("Add", ["t", "t"], ["y"])],
}


@pytest.mark.parametrize("name", CASES)
def test_operator(name: str):
    feeds = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "row": np.ones((1, 3), np.float32)}
    read = {item for node in CASES[name] for item in node.input}
    feeds = {name: array for name, array in feeds.items() if name in read}
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape) for name, array in feeds.items()]
    fixed = [numpy_helper.from_array(array, name) for name, array in FIXED.items() if name in read]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(CASES[name], name, infos, [result], fixed)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    made = read_onnx(model).programs["infer"]
    verify_graph(made)
    assert not any(value.type.size == 0 for node in made.nodes for value in (*node.inputs, *node.outputs))
    (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)
    actual = run(made, feeds).outputs["y"]
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(("op", "expected"), [("ReduceMax", -np.inf), ("ReduceMin", np.inf), ("ReduceProd", 1.0)])
def test_reductions_of_nothing(op: str, expected: float):
    """As the standard says; onnxruntime refuses the first two."""
    x = np.zeros((2, 0, 3), np.float32)
    model = one_node_onnx(op, {"x": x}, opset=13, axes=[1], keepdims=0)
    made = read_onnx(model, shapes={"x": x.shape}).programs["infer"]
    np.testing.assert_array_equal(run(made, {"x": x}).outputs["y0"], np.full((2, 3), expected, np.float32))


def test_a_cache_that_is_empty_at_first():
    """The first token of a decoder: what came before has length 0, given by `--shape`."""
    nodes = [N("Concat", ["past", "k"], ["keys"], axis=2), N("MatMul", ["q", "keys_t"], ["y"])]
    nodes.insert(1, N("Transpose", ["keys"], ["keys_t"], perm=[0, 1, 3, 2]))
    infos = [
        helper.make_tensor_value_info("past", TensorProto.FLOAT, [1, 2, "before", 4]),
        *(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, 3, 4]) for name in ("k", "q")),
    ]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "keys")]
    model = onnx.helper.make_model(helper.make_graph(nodes, "decoder", infos, results))
    made = read_onnx(model, shapes={"past": (1, 2, 0, 4)}).programs["infer"]
    rng = np.random.default_rng(0)
    k, q = (rng.normal(size=(1, 2, 3, 4)).astype(np.float32) for _ in range(2))
    outputs = run(made, {"past": np.zeros((1, 2, 0, 4), np.float32), "k": k, "q": q}).outputs
    np.testing.assert_allclose(outputs["y"], MatMul().reference(q, k.swapaxes(2, 3))[0], rtol=1e-6)
    np.testing.assert_array_equal(outputs["keys"], k)
